//! The program of the target `ioapic`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(ioapic);
