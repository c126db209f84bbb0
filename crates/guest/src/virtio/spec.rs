//! Numbers of the specification (VIRTIO 1.3), each with its section.

/// Kinds of devices (§5), as [`Device::id`](super::Device::id) has them.
pub mod id {
    /// Network card (§5.1).
    pub const NETWORK: u32 = 1;
    /// Block device (§5.2).
    pub const BLOCK: u32 = 2;
    /// Console (§5.3).
    pub const CONSOLE: u32 = 3;
    /// Source of entropy (§5.4).
    pub const ENTROPY: u32 = 4;
    /// Socket device (§5.10).
    pub const SOCKET: u32 = 19;
}

/// Offsets of the registers (§4.2.2).
pub mod register {
    /// `virt`, in ASCII.
    pub const MAGIC_VALUE: u32 = 0x000;
    /// 2; 1 is the legacy interface, which is not driven here.
    pub const VERSION: u32 = 0x004;
    /// The kind of device; 0: none.
    pub const DEVICE_ID: u32 = 0x008;
    /// 32 of the features that the device offers.
    pub const DEVICE_FEATURES: u32 = 0x010;
    /// Which 32.
    pub const DEVICE_FEATURES_SEL: u32 = 0x014;
    /// 32 of the features that the driver accepts.
    pub const DRIVER_FEATURES: u32 = 0x020;
    /// Which 32.
    pub const DRIVER_FEATURES_SEL: u32 = 0x024;
    /// Which queue the following registers are of.
    pub const QUEUE_SEL: u32 = 0x030;
    /// The largest size of the queue; 0: there is no such queue.
    pub const QUEUE_NUM_MAX: u32 = 0x034;
    /// The size of the queue.
    pub const QUEUE_NUM: u32 = 0x038;
    /// Whether the queue is in use.
    pub const QUEUE_READY: u32 = 0x044;
    /// There are buffers in this queue.
    pub const QUEUE_NOTIFY: u32 = 0x050;
    /// Why the device interrupts.
    pub const INTERRUPT_STATUS: u32 = 0x060;
    /// Which of these reasons have been seen to.
    pub const INTERRUPT_ACK: u32 = 0x064;
    /// Status of the device.
    pub const STATUS: u32 = 0x070;
    /// Address of the descriptor table: two registers, the lower half first.
    pub const QUEUE_DESC: u32 = 0x080;
    /// Address of the available ring.
    pub const QUEUE_DRIVER: u32 = 0x090;
    /// Address of the used ring.
    pub const QUEUE_DEVICE: u32 = 0x0a0;
    /// Changes whenever the configuration does.
    pub const CONFIG_GENERATION: u32 = 0x0fc;
    /// The device's configuration.
    pub const CONFIG: u32 = 0x100;
}

/// [`register::MAGIC_VALUE`]: `virt`.
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// [`register::VERSION`].
pub(super) const VERSION: u32 = 2;

/// Bits of the device's status (§2.1).
pub(super) mod status {
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    pub(crate) const DRIVER: u32 = 2;
    pub(crate) const DRIVER_OK: u32 = 4;
    pub(crate) const FEATURES_OK: u32 = 8;
    pub(crate) const NEEDS_RESET: u32 = 64;
}

/// Features of all devices (§6).
pub(super) mod feature {
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
}

/// Flags of a descriptor and of the rings (§2.7.5 to §2.7.8).
pub(super) mod ring {
    pub(crate) const DESC_F_NEXT: u16 = 1;
    pub(crate) const DESC_F_WRITE: u16 = 2;
    pub(crate) const AVAIL_F_NO_INTERRUPT: u16 = 1;
    pub(crate) const USED_F_NO_NOTIFY: u16 = 1;
}
