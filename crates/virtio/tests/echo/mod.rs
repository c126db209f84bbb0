//! A device that answers each request with its own bytes, and keeps count of what its transport asks of it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    reason = "each user takes a part, and it is for tests"
)]

use std::io;

use goldcrest_snapshot::{RestoreError, Snapshot};
use goldcrest_virtio::{
    ActivateError, ActiveQueue, Chain, DeviceError, DeviceIo, DeviceSpec, Features, QueueError,
    Ram, VirtioDevice, Waits, spec::feature,
};

/// Its queues: their greatest sizes.
pub const QUEUES: [u16; 3] = [8, 16, 64];
/// A feature of its type, and one that it does not offer.
pub const FEATURE: u64 = 1 << 5;
pub const UNKNOWN_FEATURE: u64 = 1 << 6;
/// More of a request is not answered.
const MOST: u64 = 4096;

/// Called while a chain is taken, as a guest that goes on meanwhile.
pub type Hook = Box<dyn FnMut() + Send>;

#[derive(Default)]
pub struct Echo {
    pub config: [u8; 8],
    /// Chains are kept until there are events.
    pub holds: bool,
    pub held: Vec<(u16, u16)>,
    /// The configuration changes with the next event.
    pub changes: bool,
    /// The host does not let it begin.
    pub broken: bool,
    /// Its feature needs indirect descriptors.
    pub needy: bool,
    pub hook: Option<Hook>,
    /// What the driver agreed to.
    pub features: Option<u64>,
    pub calls: u32,
    pub chains: u32,
    pub queue_resets: Vec<u16>,
    pub resets: u32,
}

impl VirtioDevice for Echo {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: 42,
            // Bits that are not of a type of device are not the device's to offer.
            features: FEATURE | 1 << 30,
            queue_sizes: QUEUES.to_vec(),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(self.config.iter().skip(from)) {
            *byte = *value;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in self.config.iter_mut().skip(from).zip(data) {
            *byte = *value;
        }
    }

    fn accepts(&self, features: Features) -> bool {
        !self.needy || !features.has(FEATURE) || features.has(feature::INDIRECT_DESC)
    }

    fn activate(&mut self, features: Features, _ram: Ram<'_>) -> Result<(), ActivateError> {
        if self.broken {
            return Err(ActivateError {
                what: "begin",
                source: io::ErrorKind::Other.into(),
            });
        }
        self.features = Some(features.0);
        Ok(())
    }

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.calls += 1;
        let Some(mut queue) = io.queue(index) else {
            return Ok(());
        };
        self.work(index, &mut queue)
            .map_err(|source| DeviceError::Queue {
                queue: index,
                source,
            })
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if std::mem::take(&mut self.changes) {
            self.config[0] = self.config[0].wrapping_add(1);
            io.config_changed();
        }
        self.quiesce(io)
    }

    fn waits(&self, waits: &mut Waits) {
        if !self.held.is_empty() {
            waits.within(std::time::Duration::from_millis(1));
        }
    }

    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        for (index, head) in self.held.drain(..) {
            if let Some(mut queue) = io.queue(index) {
                queue.push(head, 0);
            }
        }
        Ok(())
    }

    fn reset_queue(&mut self, index: u16) {
        self.held.retain(|(queue, _)| *queue != index);
        self.queue_resets.push(index);
    }

    fn reset(&mut self) {
        self.held.clear();
        self.queue_resets.clear();
        self.features = None;
        self.resets += 1;
    }
}

impl Echo {
    fn work(&mut self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<(), QueueError> {
        while let Some(mut chain) = queue.pop()? {
            self.chains += 1;
            if let Some(hook) = &mut self.hook {
                hook();
            }
            let head = chain.head;
            if self.holds {
                self.held.push((index, head));
                continue;
            }
            let written = answer(&mut chain)?;
            queue.push(head, written);
        }
        Ok(())
    }
}

fn answer(chain: &mut Chain<'_>) -> Result<u32, QueueError> {
    let mut left = chain.readable.left().min(chain.writable.left()).min(MOST);
    let mut written = 0;
    let mut bytes = [0; 256];
    while left > 0 {
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        chain.readable.read(&mut bytes[..len])?;
        chain.writable.write(&bytes[..len])?;
        left -= len as u64;
        written += u32::try_from(len).unwrap_or(0);
    }
    Ok(written)
}

impl Snapshot for Echo {
    type State = [u8; 8];
    const KIND: &'static str = "echo";
    const VERSION: u16 = 1;

    fn save(&self) -> [u8; 8] {
        self.config
    }

    fn restore(&mut self, state: [u8; 8]) -> Result<(), RestoreError> {
        self.config = state;
        Ok(())
    }
}
