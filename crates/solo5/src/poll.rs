//! `POLL`.

use std::io;
use std::time::Duration;

use crate::device::Attached;
use crate::spec;
use crate::{Host, Hypercalls, Link, Misuse, Wake};

/// Where the answers are.
const READY_SET: u64 = std::mem::offset_of!(spec::Poll, ready_set) as u64;
const RET: u64 = std::mem::offset_of!(spec::Poll, ret) as u64;

impl<H: Host> Hypercalls<H> {
    /// Waits for a frame or until time is up. The inner error is the host's.
    pub(crate) fn poll(&mut self, at: u64) -> Result<io::Result<()>, Misuse> {
        let call: spec::Poll = self.memory.argument(at)?;
        // A guest must not wait for an answer that cannot be given.
        let answer = READY_SET..size_of::<spec::Poll>() as u64;
        self.memory.check_writable(
            "poll",
            at.saturating_add(answer.start),
            answer.end - answer.start,
        )?;
        let ready = match self.wait(Duration::from_nanos(call.timeout_nsecs.get())) {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        let count = ready.count_ones();
        self.memory
            .write("poll", at.saturating_add(READY_SET), &ready.to_le_bytes())?;
        self.memory
            .write("poll", at.saturating_add(RET), &count.to_le_bytes())?;
        Ok(Ok(()))
    }

    /// The handles with frames: a bit each.
    fn wait(&mut self, timeout: Duration) -> io::Result<u64> {
        let begun = self.host.now();
        loop {
            let ready = self.ready();
            let over = self.host.now().saturating_sub(begun);
            let left = timeout.saturating_sub(over);
            if ready != 0 || left.is_zero() || self.host.is_stopped() {
                return Ok(ready);
            }
            let due = self.attached.links().filter_map(Link::timeout).min();
            let fds: Vec<_> = self.attached.links().filter_map(Link::fd).collect();
            let nap = due.map_or(left, |due| due.min(left));
            if self.host.wait(&fds, nap)? == Wake::Return {
                return Ok(0);
            }
        }
    }

    fn ready(&mut self) -> u64 {
        let mut ready = 0;
        for (handle, attached) in (0..64_u32).zip(self.attached.all_mut()) {
            if let Attached::Net(net) = attached
                && net.is_ready()
            {
                ready |= 1 << handle;
            }
        }
        ready
    }
}
