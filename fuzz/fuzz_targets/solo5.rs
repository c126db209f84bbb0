//! The program of the target `solo5`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(solo5);
