//! The program of the target `ext4`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(ext4);
