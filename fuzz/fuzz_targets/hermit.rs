//! The program of the target `hermit`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(hermit);
