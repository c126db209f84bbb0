//! The program of the target `virtio_blk`.
#![cfg_attr(fuzzing, no_main)]
goldcrest_fuzz::fuzz_target!(virtio_blk);
