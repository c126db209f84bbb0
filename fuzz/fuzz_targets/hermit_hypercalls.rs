//! The program of the target `hermit_hypercalls`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(hermit_hypercalls);
