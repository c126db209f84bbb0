//! Numbers of the specification: VIRTIO 1.3 §5.10.

/// Feature bits (§5.10.3), as masks.
pub mod feature {
    /// Stream sockets.
    pub const STREAM: u64 = 1 << 0;
    /// Sockets for sequences of packets, which are not offered.
    pub const SEQPACKET: u64 = 1 << 1;
    /// Stream sockets only if [`STREAM`] is agreed on.
    pub const NO_IMPLIED_STREAM: u64 = 1 << 2;
}

/// Queues (§5.10.2), and their greatest sizes, which are ours to choose.
pub mod queue {
    /// Packets to the driver.
    pub const RECEIVE: u16 = 0;
    /// Packets from the driver.
    pub const TRANSMIT: u16 = 1;
    /// Events.
    pub const EVENT: u16 = 2;
    /// Entries of the queues for packets.
    pub const SIZE: u16 = 256;
    /// Entries of the queue for events.
    pub const EVENT_SIZE: u16 = 16;
}

/// Context identifiers (§5.10.4).
pub mod cid {
    /// The host.
    pub const HOST: u64 = 2;
    /// The first that a guest can have.
    pub const FIRST: u64 = 3;
    /// The last.
    pub const LAST: u64 = 0xffff_fffe;
}

/// `type` of a packet (§5.10.6.2).
pub mod kind {
    /// Of a stream.
    pub const STREAM: u16 = 1;
    /// Of a sequence of packets.
    pub const SEQPACKET: u16 = 2;
}

/// `op` of a packet (§5.10.6).
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// The connection is there.
    pub const RESPONSE: u16 = 2;
    /// There is no connection, or no longer.
    pub const RST: u16 = 3;
    /// The sender will send no more, or receive no more.
    pub const SHUTDOWN: u16 = 4;
    /// Payload.
    pub const RW: u16 = 5;
    /// Only what every packet says: how much room there is.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for a [`CREDIT_UPDATE`].
    pub const CREDIT_REQUEST: u16 = 7;
}

/// `flags` of a [`SHUTDOWN`](op::SHUTDOWN) (§5.10.6.5), as masks.
pub mod shutdown {
    /// The sender will receive no more.
    pub const RECEIVE: u32 = 1 << 0;
    /// The sender will send no more.
    pub const SEND: u32 = 1 << 1;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// Bytes of `struct virtio_vsock_hdr` (§5.10.6).
pub const HEADER_SIZE: usize = 44;
/// `id` of the event that all connections are gone (§5.10.6.7).
pub const EVENT_TRANSPORT_RESET: u32 = 0;
/// The most payload that the device puts in a packet, in bytes: as much as drivers do. A driver's packet may have as
/// much as there is room for.
pub const MAX_PAYLOAD: u32 = 64 << 10;
/// The host's ports for connections that programs on the host make, which are ours to choose.
pub const EPHEMERAL_PORTS: std::ops::Range<u32> = 1 << 30..1 << 31;
