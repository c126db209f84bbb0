//! Numbers of socket devices (virtio 1.3 §5.10), and the header of their packets.

use super::Address;

/// The queues (§5.10.2).
pub(super) const RECEIVE: u16 = 0;
pub(super) const TRANSMIT: u16 = 1;
pub(super) const EVENT: u16 = 2;

/// `VIRTIO_VSOCK_F_STREAM` (§5.10.3).
pub(super) const F_STREAM: u64 = 1 << 0;

/// The configuration (§5.10.4): our own context identifier.
pub(super) const GUEST_CID: u32 = 0;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (§5.10.6.7).
pub(super) const EVENT_TRANSPORT_RESET: u32 = 0;

/// `VIRTIO_VSOCK_TYPE_STREAM` (§5.10.6).
pub(super) const TYPE_STREAM: u16 = 1;

/// What a packet is for: `VIRTIO_VSOCK_OP_*` (§5.10.6).
pub(super) mod op {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const RESPONSE: u16 = 2;
    pub(crate) const RST: u16 = 3;
    pub(crate) const SHUTDOWN: u16 = 4;
    pub(crate) const RW: u16 = 5;
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`] (§5.10.6.6): the sender receives no more, sends no more.
pub(super) mod shutdown {
    pub(crate) const RECEIVE: u32 = 1;
    pub(crate) const SEND: u32 = 2;
    pub(crate) const BOTH: u32 = RECEIVE | SEND;
}

/// `struct virtio_vsock_hdr` (§5.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) from: Address,
    pub(super) to: Address,
    /// Bytes of payload, which follow.
    pub(super) len: u32,
    /// The kind of socket.
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes that the sender can hold of this stream.
    pub(super) buf_alloc: u32,
    /// Bytes of the stream that the sender's program has taken since the beginning; wraps around.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Bytes of it.
    pub(super) const LEN: usize = 44;

    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let u16_at = |at| u16::from_le_bytes(field(bytes, at));
        let u32_at = |at| u32::from_le_bytes(field(bytes, at));
        let u64_at = |at| u64::from_le_bytes(field(bytes, at));
        Self {
            from: Address {
                cid: u64_at(0),
                port: u32_at(16),
            },
            to: Address {
                cid: u64_at(8),
                port: u32_at(20),
            },
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut rest = &mut bytes[..];
        let mut put = |value: &[u8]| {
            if let Some(field) = rest.split_off_mut(..value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(&self.from.cid.to_le_bytes());
        put(&self.to.cid.to_le_bytes());
        put(&self.from.port.to_le_bytes());
        put(&self.to.port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The packet that resets the stream which this one is of, or would be.
    pub(super) fn refusal(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            len: 0,
            kind: self.kind,
            op: op::RST,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

fn field<const N: usize>(bytes: &[u8; Header::LEN], at: usize) -> [u8; N] {
    let field = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    field.copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_has_it() {
        let header = Header {
            from: Address {
                cid: 0x0102_0304_0506_0708,
                port: 0x2122_2324,
            },
            to: Address {
                cid: 0x1112_1314_1516_1718,
                port: 0x3132_3334,
            },
            len: 0x4142_4344,
            kind: 0x5152,
            op: 0x6162,
            flags: 0x7172_7374,
            buf_alloc: 0x8182_8384,
            fwd_cnt: 0x9192_9394,
        };
        let expected = [
            8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x24, 0x23,
            0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x52, 0x51, 0x62, 0x61,
            0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81, 0x94, 0x93, 0x92, 0x91,
        ];
        assert_eq!(header.to_bytes(), expected);
        assert_eq!(Header::from_bytes(&expected), header);
    }
}
