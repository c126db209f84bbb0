//! What the example unikernels are made of and can be tested without a machine.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod http;
