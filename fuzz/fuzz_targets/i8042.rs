//! The program of the target `i8042`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(i8042);
