//! The program of the target `serial`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(serial);
