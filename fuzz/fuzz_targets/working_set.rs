//! The program of the target `working_set`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(working_set);
