//! The program of the target `state`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(state);
