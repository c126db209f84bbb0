//! The program of the target `debug_exit`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(debug_exit);
