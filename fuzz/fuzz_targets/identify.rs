//! The program of the target `identify`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(identify);
