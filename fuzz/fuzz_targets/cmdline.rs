//! The program of the target `cmdline`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(cmdline);
