//! Answers to packets of no stream.

use crate::header::Header;
use crate::spec::op;
use crate::{Backend, Vsock};

/// The most that wait for the guest to have room. Then its packets wait, too (§5.10.6.1).
pub(crate) const MAX_REFUSALS: usize = 256;

/// A [`RST`](op::RST) that is owed to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Whom the guest has sent to.
    to: u64,
    port: u32,
    guest_port: u32,
    kind: u16,
}

impl Refusal {
    fn of(header: &Header) -> Self {
        Self {
            to: header.dst_cid,
            port: header.dst_port,
            guest_port: header.src_port,
            kind: header.kind,
        }
    }

    pub(crate) fn header(&self, guest_cid: u64) -> Header {
        Header {
            src_cid: self.to,
            dst_cid: guest_cid,
            src_port: self.port,
            dst_port: self.guest_port,
            kind: self.kind,
            op: op::RST,
            ..Header::default()
        }
    }
}

impl<B: Backend> Vsock<B> {
    /// Whether there is room for another answer.
    pub(crate) fn may_refuse(&self) -> bool {
        self.refusals.len() < MAX_REFUSALS
    }

    /// The guest is to be told that there is no such stream, once. A RST is not answered: the answer might meet another
    /// stream of the same name.
    pub(crate) fn refuse(&mut self, header: &Header) {
        let refusal = Refusal::of(header);
        if header.op == op::RST || self.refusals.contains(&refusal) {
            return;
        }
        self.refusals.push_back(refusal);
    }

    /// The guest begins anew, under a name that it has used before: it does not care for the answer any more, which
    /// would end what it begins.
    pub(crate) fn forget_refusal(&mut self, header: &Header) {
        if !self.refusals.is_empty() {
            let refusal = Refusal::of(header);
            self.refusals.retain(|other| *other != refusal);
        }
    }
}
