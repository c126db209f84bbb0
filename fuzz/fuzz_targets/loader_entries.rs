//! The program of the target `loader_entries`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(loader_entries);
