//! Numbers and structures of the interface (Solo5, `include/hvt_abi.h` and `include/solo5.h`).

use goldcrest_bus::Range;
use zerocopy::little_endian::{I32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `HVT_HYPERCALL_PIO_BASE`: the first port.
pub const PORT: u16 = 0x500;
/// How many ports: `HVT_HYPERCALL_MAX`, and those that the four bytes of the last call touch.
pub const LEN: u16 = 9 + 3;
/// Their place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);

/// `enum hvt_hypercall`: the hypercalls' numbers, which are offsets of their ports.
#[allow(missing_docs, reason = "the names are the interface's")]
pub mod hypercall {
    pub const WALLTIME: u64 = 1;
    pub const PUTS: u64 = 2;
    pub const POLL: u64 = 3;
    pub const BLOCK_WRITE: u64 = 4;
    pub const BLOCK_READ: u64 = 5;
    pub const NET_WRITE: u64 = 6;
    pub const NET_READ: u64 = 7;
    pub const HALT: u64 = 8;
}

/// `solo5_result_t`.
pub mod result {
    /// It was done.
    pub const OK: i32 = 0;
    /// It cannot be done now.
    pub const AGAIN: i32 = 1;
    /// What was asked for is not possible.
    pub const EINVAL: i32 = 2;
    /// The host failed.
    pub const EUNSPEC: i32 = 3;
}

/// `HVT_HALT_COOKIE_MAX`: bytes that are readable where a cookie points to.
pub const HALT_COOKIE_MAX: u64 = 512;
/// `SOLO5_EXIT_ABORT`.
pub const EXIT_ABORT: u8 = 255;
/// `SOLO5_NET_HLEN`: bytes of an Ethernet header.
pub const NET_HLEN: usize = 14;
/// The longest frame.
pub const MAX_FRAME: usize = 0xffff + NET_HLEN;

/// A structure that a guest passes.
pub(crate) trait Argument: FromBytes {
    /// What it is called in messages.
    const NAME: &'static str;
}

macro_rules! argument {
    ($(#[$doc:meta])* $name:ident, $call:literal, $size:literal, { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl Argument for $name {
            const NAME: &'static str = $call;
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}

argument!(
    /// `struct hvt_hc_walltime`: the time is an answer.
    Walltime, "walltime", 8, { nsecs: U64 }
);
argument!(
    /// `struct hvt_hc_puts`.
    Puts, "puts", 16, { data: U64, len: U64 }
);
argument!(
    /// `struct hvt_hc_block_write` and `struct hvt_hc_block_read`.
    Block, "block", 40, { handle: U64, offset: U64, data: U64, len: U64, ret: I32, padding: [u8; 4] }
);
argument!(
    /// `struct hvt_hc_net_write` and `struct hvt_hc_net_read`.
    Net, "net", 32, { handle: U64, data: U64, len: U64, ret: I32, padding: [u8; 4] }
);
argument!(
    /// `struct hvt_hc_poll`.
    Poll, "poll", 24, { timeout_nsecs: U64, ready_set: U64, ret: I32, padding: [u8; 4] }
);
argument!(
    /// `struct hvt_hc_halt`.
    Halt, "halt", 16, { cookie: U64, exit_status: I32, padding: [u8; 4] }
);
argument!(
    /// `struct x86_trap_regs`, which the cookie of an abort points to.
    TrapRegs, "halt", 56, { cr2: U64, ec: U64, rip: U64, cs: U64, rflags: U64, rsp: U64, ss: U64 }
);
