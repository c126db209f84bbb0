//! The program of the target `multiboot2`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(multiboot2);
