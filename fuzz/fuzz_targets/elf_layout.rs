//! The program of the target `elf_layout`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(elf_layout);
