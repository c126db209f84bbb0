//! The program of the target `pe`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(pe);
