//! The program of the target `elf`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(elf);
