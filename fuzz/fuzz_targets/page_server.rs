//! The program of the target `page_server`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(page_server);
