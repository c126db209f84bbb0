//! The program of the target `rtc`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(rtc);
