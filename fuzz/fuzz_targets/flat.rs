//! The program of the target `flat`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(flat);
