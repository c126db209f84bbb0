//! The program of the target `boot_disk`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(boot_disk);
