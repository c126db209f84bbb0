//! The program of the target `envelope`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(envelope);
