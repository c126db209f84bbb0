//! What has been moved, and what was dropped and why.

/// Counts since the device was made. A frame that waits is not counted until it is moved or dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetStats {
    /// Frames that the guest received.
    pub rx_frames: u64,
    /// Their bytes, without virtio headers.
    pub rx_bytes: u64,
    /// Frames that the guest did not want: by its filter.
    pub rx_filtered: u64,
    /// Frames dropped since they are longer than the guest's buffers, all that it had for some time.
    pub rx_too_long: u64,
    /// Frames dropped since they are longer than the MTU that was agreed on.
    pub rx_over_mtu: u64,
    /// Frames dropped since they are shorter than an Ethernet header.
    pub rx_too_short: u64,
    /// Times that the host failed to give a frame.
    pub rx_errors: u64,
    /// Frames that the guest sent.
    pub tx_frames: u64,
    /// Their bytes, without virtio headers.
    pub tx_bytes: u64,
    /// Frames dropped since they are longer than 65,562 bytes with their virtio headers.
    pub tx_too_long: u64,
    /// Frames dropped since they are shorter than a virtio header and an Ethernet header.
    pub tx_too_short: u64,
    /// Frames dropped since their virtio headers are wrong or ask for what was not agreed on.
    pub tx_bad_header: u64,
    /// Frames dropped since they do not lie in RAM, or since the host did not take them.
    pub tx_errors: u64,
    /// Commands of the control queue that were refused.
    pub control_errors: u64,
}

impl NetStats {
    /// Frames for the guest that it did not get.
    pub const fn rx_dropped(&self) -> u64 {
        self.rx_filtered + self.rx_too_long + self.rx_over_mtu + self.rx_too_short
    }

    /// Frames of the guest's that did not get out.
    pub const fn tx_dropped(&self) -> u64 {
        self.tx_too_long + self.tx_too_short + self.tx_bad_header + self.tx_errors
    }
}

/// One more.
#[inline]
pub(crate) fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
