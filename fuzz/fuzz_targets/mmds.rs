//! The program of the target `mmds`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(mmds);
