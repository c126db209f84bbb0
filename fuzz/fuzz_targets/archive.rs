//! The program of the target `archive`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(archive);
