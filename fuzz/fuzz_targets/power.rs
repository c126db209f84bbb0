//! The program of the target `power`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(power);
