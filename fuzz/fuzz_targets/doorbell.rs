//! The program of the target `doorbell`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(doorbell);
