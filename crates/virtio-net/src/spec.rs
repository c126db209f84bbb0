//! Numbers of the specification: VIRTIO 1.3 §5.1.

/// Feature bits (§5.1.3), as masks.
pub mod feature {
    /// The device computes checksums that a frame to it leaves out.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames whose checksums are left out.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The driver can change what it takes, by the control queue.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// `mtu` is valid.
    pub const MTU: u64 = 1 << 3;
    /// `mac` is valid.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP over IPv4 in segments that are not cut.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// It takes TCP with explicit congestion notification so.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The driver takes fragments of UDP that are not cut.
    pub const GUEST_UFO: u64 = 1 << 10;
    /// The device cuts TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// It cuts TCP with explicit congestion notification.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The device cuts UDP into fragments.
    pub const HOST_UFO: u64 = 1 << 14;
    /// A frame may fill several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `status` is valid.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The driver says which frames it wants.
    pub const CTRL_RX: u64 = 1 << 18;
    /// The driver says which VLANs it wants.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// There are more ways to say which frames.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The device may ask the driver to announce its address.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// There are several pairs of queues.
    pub const MQ: u64 = 1 << 22;
    /// The driver can set the address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// The driver takes UDP over IPv4 in segments that are not cut.
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The same over IPv6.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device cuts UDP into segments.
    pub const HOST_USO: u64 = 1 << 56;

    /// What the driver may turn off and on again by `VIRTIO_NET_CTRL_GUEST_OFFLOADS` (§5.1.6.5.7).
    pub const GUEST_OFFLOADS: u64 =
        GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO | GUEST_USO4 | GUEST_USO6;
    /// By which the driver gets frames longer than those on a wire.
    pub const GUEST_GSO: u64 = GUEST_TSO4 | GUEST_TSO6 | GUEST_UFO | GUEST_USO4 | GUEST_USO6;
    /// What the device does to the driver's frames.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_UFO | HOST_USO;
}

/// Queues (§5.1.2): a pair has two, the control queue follows the last pair.
pub mod queue {
    /// The greatest size of those for frames, which is ours to choose.
    pub const SIZE: u16 = 256;
    /// The greatest size of the control queue, which is ours to choose.
    pub const CONTROL_SIZE: u16 = 64;
    /// The most pairs, which is ours to choose.
    pub const MAX_PAIRS: u16 = 8;
}

/// Offsets in the configuration (§5.1.4).
pub mod config {
    /// `u8 mac[6]`.
    pub const MAC: u64 = 0;
    /// `le16 status`.
    pub const STATUS: u64 = 6;
    /// `le16 max_virtqueue_pairs`.
    pub const MAX_VIRTQUEUE_PAIRS: u64 = 8;
    /// `le16 mtu`.
    pub const MTU: u64 = 10;
    /// Bytes up to there.
    pub const LEN: usize = 12;
    /// The link is up: a bit of `status`.
    pub const S_LINK_UP: u16 = 1;
    /// The driver is to announce its address: a bit of `status`.
    pub const S_ANNOUNCE: u16 = 2;
    /// The least `mtu` (§5.1.4.1).
    pub const MIN_MTU: u16 = 68;
}

/// `struct virtio_net_hdr` (§5.1.6), which precedes every frame.
pub mod header {
    /// Its bytes, without hash reports, whatever else has been agreed on.
    pub const SIZE: usize = 12;
    /// Where `num_buffers` is.
    pub const NUM_BUFFERS: u64 = 10;
    /// Where `gso_type` is.
    pub const GSO_TYPE: u64 = 1;
    /// The checksum is left out: a flag.
    pub const F_NEEDS_CSUM: u8 = 1;
    /// The checksum has been found right: a flag.
    pub const F_DATA_VALID: u8 = 2;
    /// The frame is not to be cut: a type.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// Fragments of UDP.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Segments of UDP.
    pub const GSO_UDP_L4: u8 = 5;
    /// With explicit congestion notification: added to a type.
    pub const GSO_ECN: u8 = 0x80;
}

/// Commands of the control queue (§5.1.6.5): classes, and the commands of each.
pub mod control {
    /// The command was carried out.
    pub const OK: u8 = 0;
    /// It was not.
    pub const ERR: u8 = 1;

    /// Which frames are wanted (§5.1.6.5.1); each command has a byte, 0 or 1.
    pub const RX: u8 = 0;
    /// All.
    pub const RX_PROMISC: u8 = 0;
    /// All to groups.
    pub const RX_ALLMULTI: u8 = 1;
    /// All to single addresses.
    pub const RX_ALLUNI: u8 = 2;
    /// None to groups.
    pub const RX_NOMULTI: u8 = 3;
    /// None to single addresses.
    pub const RX_NOUNI: u8 = 4;
    /// None to everybody.
    pub const RX_NOBCAST: u8 = 5;

    /// Addresses (§5.1.6.5.2).
    pub const MAC: u8 = 1;
    /// Two tables of addresses, each preceded by the number of its entries.
    pub const MAC_TABLE_SET: u8 = 0;
    /// The device's own.
    pub const MAC_ADDR_SET: u8 = 1;

    /// The driver has announced its address (§5.1.6.5.4).
    pub const ANNOUNCE: u8 = 3;
    /// That it has.
    pub const ANNOUNCE_ACK: u8 = 0;

    /// How many pairs of queues are in use (§5.1.6.5.5).
    pub const MQ: u8 = 4;
    /// `le16 virtqueue_pairs`.
    pub const MQ_VQ_PAIRS_SET: u8 = 0;

    /// What of the agreed offloads the driver takes now (§5.1.6.5.7).
    pub const GUEST_OFFLOADS: u8 = 5;
    /// `le64 offloads`, as feature bits.
    pub const GUEST_OFFLOADS_SET: u8 = 0;
}

/// Bytes of an Ethernet header: two addresses and a type.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes that a tag of a VLAN adds to it.
pub const VLAN_TAG: usize = 4;
/// The most bytes of a frame with its header: 64 KiB of IP, an Ethernet header, the virtio header (§5.1.6.3.1).
pub const MAX_FRAME: usize = 65550 + header::SIZE;
/// The most bytes, with the virtio header, of a frame of 1,500 bytes of payload (§5.1.6.3.1).
pub const PLAIN_FRAME: usize = 1514 + header::SIZE;
