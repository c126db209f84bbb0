//! The program of the target `mmio`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(mmio);
