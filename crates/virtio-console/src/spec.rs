//! Numbers of the specification: VIRTIO 1.3 §5.3.

/// Feature bits (§5.3.3), as masks.
pub mod feature {
    /// `cols` and `rows` are valid.
    pub const SIZE: u64 = 1 << 0;
    /// There are several ports and control queues; `max_nr_ports` is valid.
    pub const MULTIPORT: u64 = 1 << 1;
    /// `emerg_wr` takes a character.
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Queues (§5.3.2).
pub mod queue {
    /// To the driver of port 0.
    pub const RECEIVE: u16 = 0;
    /// From the driver of port 0.
    pub const TRANSMIT: u16 = 1;
    /// Control messages to the driver.
    pub const CONTROL_RECEIVE: u16 = 2;
    /// Control messages from the driver.
    pub const CONTROL_TRANSMIT: u16 = 3;
    /// The greatest size of each, which is ours to choose.
    pub const SIZE: u16 = 64;
}

/// Offsets in the configuration (§5.3.4).
pub mod config {
    /// `le16 cols`.
    pub const COLS: u64 = 0;
    /// `le16 rows`.
    pub const ROWS: u64 = 2;
    /// `le32 max_nr_ports`.
    pub const MAX_NR_PORTS: u64 = 4;
    /// `le32 emerg_wr`: a character to be put out.
    pub const EMERG_WR: u64 = 8;
}

/// Events of control messages (§5.3.6.2).
pub mod event {
    /// From the driver: it is ready to be told of ports (value 1), or has failed (0).
    pub const DEVICE_READY: u16 = 0;
    /// To the driver: there is a port.
    pub const PORT_ADD: u16 = 1;
    /// To the driver: there is a port no longer.
    pub const PORT_REMOVE: u16 = 2;
    /// From the driver: it is ready to use the port (value 1), or has failed (0).
    pub const PORT_READY: u16 = 3;
    /// To the driver: the port is a console.
    pub const CONSOLE_PORT: u16 = 4;
    /// To the driver: the console's size, [`RESIZE_SIZE`](super::RESIZE_SIZE) bytes that follow.
    pub const RESIZE: u16 = 5;
    /// Both ways: the port is open (value 1) or closed (0) at this side.
    pub const PORT_OPEN: u16 = 6;
    /// To the driver: the port's name, which follows, without a zero at its end.
    pub const PORT_NAME: u16 = 7;
}

/// Bytes of `struct virtio_console_control`: `le32 id`, `le16 event`, `le16 value` (§5.3.6.2).
pub const CONTROL_SIZE: usize = 8;
/// Bytes of `struct virtio_console_resize`: `le16 cols`, `le16 rows` (§5.3.6.2). Many versions of Linux take them the
/// other way round, and none can be told from the others; this is the specification's order.
pub const RESIZE_SIZE: usize = 4;
/// The most ports, which is ours to choose: with them the device has 64 queues.
pub const MAX_PORTS: usize = 31;
/// The most bytes of a port's name, which is ours to choose.
pub const MAX_NAME: usize = 64;
