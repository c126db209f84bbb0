//! Numbers of the specification: VIRTIO 1.3 §5.4. The device has no features and no configuration.

/// The one queue, `requestq` (§5.4.2).
pub const REQUEST_QUEUE: u16 = 0;
/// Its greatest size, which is ours to choose.
pub const QUEUE_SIZE: u16 = 64;
