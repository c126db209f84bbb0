//! The program of the target `virtio_net`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(virtio_net);
