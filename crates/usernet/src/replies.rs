//! Small frames for the guest that are no flow's.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::checksum::Checksum;
use crate::header::{Header, Link};
use crate::packet::protocol;

/// The most frames that wait.
const MAX_FRAMES: usize = 64;
/// The most bytes that wait.
const MAX_BYTES: usize = 128 << 10;
/// Memory of frames up to this many bytes is used again.
const KEPT: usize = 2048;

/// Frames that wait, in their order. Who asks for more than is fetched gets no answer.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    queue: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

/// There are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Replies {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The first frame.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.queue.front().map(Vec::as_slice)
    }

    /// Drops the first frame.
    pub(crate) fn pop(&mut self) {
        if let Some(mut frame) = self.queue.pop_front() {
            self.bytes -= frame.len();
            if frame.capacity() <= KEPT {
                frame.clear();
                self.spare.push(frame);
            }
        }
    }

    /// Adds a frame of these parts.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), Full> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.queue.len() >= MAX_FRAMES || self.bytes + len > MAX_BYTES {
            return Err(Full);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        for part in parts {
            frame.extend_from_slice(part);
        }
        self.bytes += len;
        self.queue.push_back(frame);
        Ok(())
    }

    /// Adds a frame of ICMP, of the version that the addresses have: type and code, what follows, and the data.
    pub(crate) fn push_icmp(
        &mut self,
        link: Link,
        (src, dst): (IpAddr, IpAddr),
        kind: [u8; 2],
        word: [u8; 4],
        data: &[u8],
    ) -> Result<(), Full> {
        let len = 8 + data.len();
        let (number, sum) = match dst {
            IpAddr::V4(_) => (protocol::ICMP, Checksum::default()),
            IpAddr::V6(_) => {
                let sum = Checksum::default().add_pseudo(src, dst, protocol::ICMPV6, len);
                (protocol::ICMPV6, sum)
            }
        };
        let sum = sum.add(&kind).add(&[0, 0]).add(&word).add(data).finish();
        let mut header = Header::ip(link, src, dst, number, len);
        header.push(&kind);
        header.push(&sum.to_be_bytes());
        header.push(&word);
        self.push(&[header.bytes(), data])
    }

    /// Adds a datagram of UDP.
    pub(crate) fn push_udp(
        &mut self,
        link: Link,
        (src, dst): (IpAddr, IpAddr),
        ports: (u16, u16),
        data: &[u8],
    ) -> Result<(), Full> {
        let len = 8 + data.len();
        let mut header = Header::ip(link, src, dst, protocol::UDP, len);
        let udp = udp_header(ports, len);
        let sum = Checksum::default()
            .add_pseudo(src, dst, protocol::UDP, len)
            .add(&udp)
            .add(data);
        let start = header.len();
        header.push(&udp);
        header.set(start + 6, sum.finish_udp().to_be_bytes());
        self.push(&[header.bytes(), data])
    }
}

/// The header of a datagram of `len` bytes, itself included, without its checksum.
pub(crate) fn udp_header((src, dst): (u16, u16), len: usize) -> [u8; 8] {
    let ([a, b], [c, d]) = (src.to_be_bytes(), dst.to_be_bytes());
    let [e, f] = crate::header::length(len);
    [a, b, c, d, e, f, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_bounded_number_waits() {
        let mut replies = Replies::default();
        let frame = [0; 100];
        for _ in 0..MAX_FRAMES {
            replies.push(&[&frame]).unwrap();
        }
        assert_eq!(replies.push(&[&frame]), Err(Full));
        replies.pop();
        replies.push(&[&frame[..50], &frame[50..]]).unwrap();

        let mut large = Replies::default();
        large.push(&[&vec![0; MAX_BYTES]]).unwrap();
        assert_eq!(large.push(&[&[0]]), Err(Full));
        large.pop();
        assert!(large.is_empty() && large.spare.is_empty());
    }
}
