//! The program of the target `machine_state`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(machine_state);
