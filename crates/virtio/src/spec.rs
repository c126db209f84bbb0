//! Numbers of the specification: Virtual I/O Device (VIRTIO) Version 1.3, whose sections are named here.

/// Device status bits (§2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// The features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device has given up until it is reset.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits that belong to queues and transport, not to a type of device (§6), as masks.
pub mod feature {
    /// Descriptors may refer to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` say when to notify.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows this specification, not what came before.
    pub const VERSION_1: u64 = 1 << 32;
    /// Queues can be reset one by one.
    pub const RING_RESET: u64 = 1 << 40;
    /// Bits for types of device: 0 to 23, and 50 to 127, of which 64 are known here.
    pub const DEVICE_TYPE: u64 = 0x00ff_ffff | 0x3fff << 50;
}

/// Split virtqueues (§2.7).
pub mod ring {
    /// `struct virtq_desc` (§2.7.5): address, length, flags, next.
    pub const DESCRIPTOR_SIZE: u32 = 16;
    /// The chain goes on at `next`.
    pub const DESC_F_NEXT: u16 = 1;
    /// The buffer is for the device to write, else to read.
    pub const DESC_F_WRITE: u16 = 2;
    /// The buffer holds descriptors.
    pub const DESC_F_INDIRECT: u16 = 4;
    /// The driver wants no interrupts (§2.7.6).
    pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
    /// The device wants no notifications (§2.7.8).
    pub const USED_F_NO_NOTIFY: u16 = 1;
    /// The most entries of a queue (§2.7).
    pub const MAX_SIZE: u16 = 32768;
    /// Offsets in the available and in the used ring (§2.7.6, §2.7.8).
    pub const FLAGS: usize = 0;
    /// The index that its writer advances.
    pub const INDEX: usize = 2;
    /// The first entry.
    pub const ENTRIES: usize = 4;
    /// Bytes of an entry of the available ring.
    pub const AVAIL_ENTRY: usize = 2;
    /// Bytes of an entry of the used ring.
    pub const USED_ENTRY: usize = 8;
    /// Alignment of the descriptor table, the available and the used ring (§2.7).
    pub const DESCRIPTORS_ALIGN: u64 = 16;
    /// See [`DESCRIPTORS_ALIGN`].
    pub const AVAILABLE_ALIGN: u64 = 2;
    /// See [`DESCRIPTORS_ALIGN`].
    pub const USED_ALIGN: u64 = 4;
}

/// Device types (§5).
pub mod device_id {
    /// Network card (§5.1).
    pub const NETWORK: u32 = 1;
    /// Block device (§5.2).
    pub const BLOCK: u32 = 2;
    /// Console (§5.3).
    pub const CONSOLE: u32 = 3;
    /// Entropy source (§5.4).
    pub const ENTROPY: u32 = 4;
    /// Memory balloon (§5.5).
    pub const BALLOON: u32 = 5;
    /// Socket device (§5.10).
    pub const SOCKET: u32 = 19;
}

/// Registers of the MMIO transport (§4.2.2).
pub mod mmio {
    /// Reads as [`MAGIC_VALUE`].
    pub const MAGIC: u64 = 0x000;
    /// `virt`.
    pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");
    /// Reads as [`VERSION_VALUE`].
    pub const VERSION: u64 = 0x004;
    /// The version that is not legacy.
    pub const VERSION_VALUE: u32 = 2;
    /// The device's type.
    pub const DEVICE_ID: u64 = 0x008;
    /// Reads as [`VENDOR`].
    pub const VENDOR_ID: u64 = 0x00c;
    /// Who made the device: `GCRS`.
    pub const VENDOR: u32 = u32::from_le_bytes(*b"GCRS");
    /// 32 of the features that the device offers.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Which 32 of them.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// 32 of the features that the driver takes.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Which 32 of them.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// The queue that the `Queue…` registers are of.
    pub const QUEUE_SEL: u64 = 0x030;
    /// Its greatest size, 0 if it does not exist.
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    /// Its size.
    pub const QUEUE_SIZE: u64 = 0x038;
    /// Whether it is in use.
    pub const QUEUE_READY: u64 = 0x044;
    /// The driver has added buffers to the queue that it writes here.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// Why there was an interrupt: [`INT_USED_BUFFER`], [`INT_CONFIG_CHANGE`].
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// Bits written here are cleared there.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// A queue has used buffers.
    pub const INT_USED_BUFFER: u32 = 1;
    /// The configuration has changed.
    pub const INT_CONFIG_CHANGE: u32 = 2;
    /// The device status; 0 resets.
    pub const STATUS: u64 = 0x070;
    /// Descriptor table, lower half of the address; the upper half follows.
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    /// Upper half.
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Available ring.
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    /// Upper half.
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Used ring.
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    /// Upper half.
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// The shared memory region that the next four are of; there is none, so they read as all ones.
    pub const SHM_SEL: u64 = 0x0ac;
    /// Its length, lower half.
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    /// Its address, upper half.
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Resets the selected queue.
    pub const QUEUE_RESET: u64 = 0x0c0;
    /// Changes whenever the configuration does.
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    /// Where the device's configuration begins.
    pub const CONFIG: u64 = 0x100;
}
