//! The program of the target `parse`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(parse);
