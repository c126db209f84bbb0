//! What a guest does not survive.

/// A call that has no answer. The guest ends, and a person is told this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Port 0x500 itself, and those behind the last.
    #[error("the guest made hypercall {number}: there are 1 to 8")]
    Number {
        /// What was called.
        number: u64,
    },
    /// The address of a structure has 32 bits.
    #[error("the guest made a hypercall by {width} bytes: the address of its argument has 4")]
    Width {
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
    /// The guest itself may not write there, so that nobody does.
    #[error(
        "the guest's hypercall {call} would write {len} bytes at {at:#x}, which the guest cannot write"
    )]
    ReadOnly {
        /// The hypercall.
        call: &'static str,
        /// Guest-physical address.
        at: u64,
        /// Bytes.
        len: u64,
    },
}
