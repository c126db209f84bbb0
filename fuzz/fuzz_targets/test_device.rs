//! The program of the target `test_device`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(test_device);
