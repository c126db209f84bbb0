//! The program of the target `api`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(api);
