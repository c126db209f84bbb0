//! What a guest does not survive.

/// A call that has no answer. The guest ends, and a person is told this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The address of a structure has 32 bits.
    #[error("the guest made hypercall {call} by {width} bytes: the address of its argument has 4")]
    Width {
        /// The hypercall.
        call: &'static str,
        /// How many bytes were written.
        width: usize,
    },
    /// Not all of it is RAM.
    #[error("the guest's hypercall {call} names {len} bytes at {at:#x}, which are not RAM")]
    NotRam {
        /// The hypercall.
        call: &'static str,
        /// Guest-physical address.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// The guest's page tables do not have it.
    #[error(
        "the guest's hypercall {call} names the virtual address {at:#x}, which its page tables do not map"
    )]
    NotMapped {
        /// The hypercall.
        call: &'static str,
        /// Guest-virtual address.
        at: u64,
    },
}
