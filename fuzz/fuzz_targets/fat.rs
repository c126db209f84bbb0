//! The program of the target `fat`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(fat);
