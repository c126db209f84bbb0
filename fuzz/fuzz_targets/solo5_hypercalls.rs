//! The program of the target `solo5_hypercalls`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(solo5_hypercalls);
