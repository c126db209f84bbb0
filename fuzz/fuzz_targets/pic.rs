//! The program of the target `pic`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(pic);
