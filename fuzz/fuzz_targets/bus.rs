//! The program of the target `bus`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(bus);
