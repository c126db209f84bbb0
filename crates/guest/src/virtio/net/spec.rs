//! Numbers of network cards (virtio 1.3 §5.1).

/// The queues (§5.1.2).
pub(super) const RECEIVE: u16 = 0;
pub(super) const TRANSMIT: u16 = 1;

/// Features (§5.1.3).
pub(super) mod feature {
    /// A frame may be sent whose checksum the host completes.
    pub(crate) const CSUM: u64 = 1 << 0;
    /// A frame may be received whose checksum is not complete.
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    pub(crate) const MTU: u64 = 1 << 3;
    pub(crate) const MAC: u64 = 1 << 5;
    pub(crate) const STATUS: u64 = 1 << 16;
    /// What the driver makes use of.
    pub(crate) const WANTED: u64 = CSUM | GUEST_CSUM | MTU | MAC | STATUS;
}

/// Fields of the configuration (§5.1.4).
pub(super) mod offset {
    pub(crate) const MAC: u32 = 0;
    pub(crate) const STATUS: u32 = 6;
    pub(crate) const MTU: u32 = 10;
}

/// [`offset::STATUS`]: `VIRTIO_NET_S_LINK_UP`.
pub(super) const LINK_UP: u16 = 1;

/// `struct virtio_net_hdr` (§5.1.6), which comes before every frame.
pub(super) mod header {
    /// Bytes, `num_buffers` included.
    pub(crate) const LEN: usize = 12;
    /// Offsets of the fields that are used here.
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const CSUM_START: usize = 6;
    pub(crate) const CSUM_OFFSET: usize = 8;
    /// `flags`: the checksum is to be completed.
    pub(crate) const F_NEEDS_CSUM: u8 = 1;
    /// `flags`: the checksum was found to be right.
    pub(crate) const F_DATA_VALID: u8 = 2;
}

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// Bytes of a VLAN tag, which the MTU does not count.
pub(super) const VLAN_TAG: usize = 4;
/// The MTU of Ethernet, where the host names none.
pub(super) const DEFAULT_MTU: u16 = 1500;
/// The smallest that a host may name (§5.1.4.1).
pub(super) const MIN_MTU: u16 = 68;
