//! Numbers and structures of the interface (crate `uhyve-interface` 0.3, `v1/mod.rs` and `v1/parameters.rs`).

use zerocopy::little_endian::{I32, I64, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `HypercallAddress`: the hypercalls' ports.
#[allow(missing_docs, reason = "the names are the interface's")]
pub mod port {
    pub const FILE_WRITE: u16 = 0x400;
    pub const FILE_OPEN: u16 = 0x440;
    pub const FILE_CLOSE: u16 = 0x480;
    pub const FILE_READ: u16 = 0x500;
    pub const EXIT: u16 = 0x540;
    pub const FILE_LSEEK: u16 = 0x580;
    pub const CMDSIZE: u16 = 0x740;
    pub const CMDVAL: u16 = 0x780;
    pub const UART: u16 = 0x800;
    pub const FILE_UNLINK: u16 = 0x840;
    pub const SERIAL_WRITE_BUFFER: u16 = 0x880;

    /// All of them.
    pub const ALL: [u16; 11] = [
        FILE_WRITE,
        FILE_OPEN,
        FILE_CLOSE,
        FILE_READ,
        EXIT,
        FILE_LSEEK,
        CMDSIZE,
        CMDVAL,
        UART,
        FILE_UNLINK,
        SERIAL_WRITE_BUFFER,
    ];
}

/// `MAX_ARGC_ENVC`: the most arguments, the program's name among them.
pub const MAX_ARGS: usize = 128;

/// `-ENOENT`.
pub const NO_ENTRY: i32 = -2;

/// A structure that a guest passes. None has padding.
pub(crate) trait Params: FromBytes + IntoBytes {
    /// What the call is called in messages.
    const NAME: &'static str;
}

macro_rules! params {
    ($(#[$doc:meta])* $name:ident, $call:literal, $size:literal, { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl Params for $name {
            const NAME: &'static str = $call;
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}

params!(
    /// `CmdsizeParams`: all of it is an answer.
    Cmdsize, "Cmdsize", 1032, { argc: I32, argsz: [I32; MAX_ARGS], envc: I32, envsz: [I32; MAX_ARGS] }
);
params!(
    /// `CmdvalParams`: where addresses are, one for each string.
    Cmdval, "Cmdval", 16, { argv: U64, envp: U64 }
);
params!(
    /// `ExitParams`.
    Exit, "Exit", 4, { arg: I32 }
);
params!(
    /// `UnlinkParams`.
    Unlink, "FileUnlink", 12, { name: U64, ret: I32 }
);
params!(
    /// `WriteParams`: `buf` is virtual.
    Write, "FileWrite", 20, { fd: I32, buf: U64, len: U64 }
);
params!(
    /// `ReadParams`.
    Read, "FileRead", 28, { fd: I32, buf: U64, len: U64, ret: I64 }
);
params!(
    /// `CloseParams`.
    Close, "FileClose", 8, { fd: I32, ret: I32 }
);
params!(
    /// `OpenParams`.
    Open, "FileOpen", 20, { name: U64, flags: I32, mode: I32, ret: I32 }
);
params!(
    /// `LseekParams`: `offset` is the answer, too.
    Lseek, "FileLseek", 16, { fd: I32, offset: I64, whence: I32 }
);
params!(
    /// `SerialWriteBufferParams`.
    SerialWriteBuffer, "SerialWriteBuffer", 16, { buf: U64, len: U64 }
);
