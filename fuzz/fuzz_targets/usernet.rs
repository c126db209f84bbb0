//! The program of the target `usernet`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(usernet);
