//! What is said about a frame beside its bytes.

/// What the guest has left undone of a frame that it sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// The checksum of TCP or UDP is not complete, and is not looked at. So it is with `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
    ///
    /// A segment that the guest wants to have cut needs no mark: it is taken as the large segment that it is.
    pub checksum: bool,
}

/// What the guest can do for itself with a frame that it receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RxOffload {
    /// It takes frames of TCP and UDP whose checksum is not complete: `VIRTIO_NET_F_GUEST_CSUM`.
    pub checksum: bool,
    /// It takes segments of TCP over IPv4 that are larger than the MTU: `VIRTIO_NET_F_GUEST_TSO4`. Needs `checksum`.
    pub tso4: bool,
    /// The same over IPv6: `VIRTIO_NET_F_GUEST_TSO6`.
    pub tso6: bool,
}

/// A frame that the guest has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its length in bytes.
    pub len: usize,
    /// The checksum that the guest is to complete, if there is one.
    pub checksum: Option<PartialChecksum>,
    /// What it is a large segment of, if it is one.
    pub gso: Option<Gso>,
}

impl FrameInfo {
    pub(crate) fn plain(len: usize) -> Self {
        Self {
            len,
            checksum: None,
            gso: None,
        }
    }
}

/// A checksum to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// From which byte of the frame on it is made: `csum_start`.
    pub start: u16,
    /// How many bytes further it belongs: `csum_offset`.
    pub offset: u16,
}

/// A large segment, as it could have been cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Of what it is.
    pub kind: GsoKind,
    /// The length of its headers in bytes, Ethernet's included: `hdr_len`.
    pub header_len: u16,
    /// The bytes of data in each piece: `gso_size`.
    pub mss: u16,
}

/// What a large segment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}
