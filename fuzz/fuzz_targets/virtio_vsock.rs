//! The program of the target `virtio_vsock`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(virtio_vsock);
