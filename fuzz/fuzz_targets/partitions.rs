//! The program of the target `partitions`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(partitions);
