//! What a driver must know after its device was saved and restored: that all streams are gone (§5.10.6.7).
//!
//! A driver that hears of it resets all its streams, those included that have begun since. So none begin before it has
//! heard: the guest gets no packets until it has, or has had time enough. It has heard when it gives the event's buffer
//! back, of which it is asked to notify.

use std::time::Duration;

use goldcrest_virtio::{ActiveQueue, DeviceError, DeviceIo, QueueError};

use crate::device::misused;
use crate::spec::{EVENT_TRANSPORT_RESET, queue};
use crate::{Backend, Vsock};

/// How long a driver may take. One that never answers has no streams either, or will find out by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the driver is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interruption {
    /// The driver has to be told.
    owed: bool,
    hold: Hold,
    /// How many buffers for events were left when it was.
    left: usize,
}

/// Whether anything else is held back until the driver has heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    No,
    /// Yes, from when the device is called first.
    Soon,
    /// Yes, but no longer than this.
    Until(Duration),
}

impl Interruption {
    /// The driver knows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            owed: true,
            hold: Hold::Soon,
            left: 0,
        }
    }

    /// Whether the guest gets no packets.
    pub(crate) fn holds(self) -> bool {
        self.hold != Hold::No
    }

    pub(crate) fn deadline(self) -> Option<Duration> {
        match self.hold {
            Hold::No => None,
            Hold::Soon => Some(Duration::ZERO),
            Hold::Until(until) => Some(until),
        }
    }
}

impl<B: Backend> Vsock<B> {
    /// Tells the driver, if it has not been told and has room for it.
    pub(crate) fn tell_interruption(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let now = match self.interruption {
            Interruption {
                owed: false,
                hold: Hold::No,
                ..
            } => return Ok(()),
            _ => self.clock.now(),
        };
        self.interruption.hold = match self.interruption.hold {
            Hold::Soon => Hold::Until(now.saturating_add(PATIENCE)),
            Hold::Until(until) if until <= now => Hold::No,
            same => same,
        };
        if self.interruption.owed
            && let Some(mut queue) = io.queue(queue::EVENT)
            && tell(&mut queue).map_err(misused(queue::EVENT))?
        {
            self.interruption.owed = false;
            self.interruption.left = count(&mut queue).map_err(misused(queue::EVENT))?;
        }
        Ok(())
    }

    /// The driver may have given buffers for events.
    pub(crate) fn heed_interruption(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if self.interruption.owed || !self.interruption.holds() {
            return self.tell_interruption(io);
        }
        if let Some(mut queue) = io.queue(queue::EVENT)
            && count(&mut queue).map_err(misused(queue::EVENT))? > self.interruption.left
        {
            self.interruption.hold = Hold::No;
        }
        Ok(())
    }
}

/// Puts the event in the first buffer, if there is one.
fn tell(queue: &mut ActiveQueue<'_>) -> Result<bool, QueueError> {
    let Some(mut chain) = queue.pop()? else {
        return Ok(false);
    };
    let (head, event) = (chain.head, EVENT_TRANSPORT_RESET.to_le_bytes());
    chain.writable.write(&event)?;
    queue.push(head, u32::try_from(event.len()).unwrap_or(0));
    Ok(true)
}

/// Counts the buffers that are left, by taking all and putting them back. So the driver finds that the device has found
/// the queue empty, and notifies of the next.
fn count(queue: &mut ActiveQueue<'_>) -> Result<usize, QueueError> {
    let mut heads = [0; queue::EVENT_SIZE as usize];
    let mut count = 0;
    for place in &mut heads {
        match queue.pop()? {
            Some(chain) => *place = chain.head,
            None => break,
        }
        count += 1;
    }
    for head in heads.iter().take(count).rev() {
        queue.undo_pop(*head);
    }
    Ok(count)
}
