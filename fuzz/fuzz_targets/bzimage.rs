//! The program of the target `bzimage`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(bzimage);
