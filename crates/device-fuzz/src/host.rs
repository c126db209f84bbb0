//! The driver's handles on the host's side of a device.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// How many things are kept in mind: a run is not to grow.
const KEPT: usize = 64;

/// A guest that goes on while its device works: a backend calls [`strike`](Self::strike), and memory changes.
///
/// Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Interference(Arc<Mutex<Plans>>);

#[derive(Debug, Default)]
struct Plans {
    memory: Option<GuestMemoryMmap>,
    plans: VecDeque<(u64, [u8; 8])>,
}

impl Interference {
    /// Does what the driver has planned next, if anything: writes some bytes somewhere in guest RAM.
    pub fn strike(&self) {
        let mut plans = self.lock();
        let Some((address, bytes)) = plans.plans.pop_front() else {
            return;
        };
        plans.plans.push_back((address, bytes));
        if let Some(memory) = &plans.memory {
            // A plan may be to write where there is no RAM.
            let _ = memory.write_slice(&bytes, GuestAddress(address));
        }
    }

    pub(crate) fn begin(&self, memory: &GuestMemoryMmap) {
        self.lock().memory = Some(memory.clone());
    }

    pub(crate) fn plan(&self, address: u64, bytes: [u8; 8]) {
        let mut plans = self.lock();
        plans.plans.push_back((address, bytes));
        while plans.plans.len() > KEPT {
            plans.plans.pop_front();
        }
    }

    pub(crate) fn end(&self) {
        self.lock().plans.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Plans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What goes wrong on the host: a backend asks [`next`](Self::next), and takes the number for a fault of its choice.
///
/// Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<u8>>>);

impl Faults {
    /// The next number; 0, that nothing goes wrong, if there is none. There is none after the driver's last reset.
    #[allow(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&self) -> u8 {
        self.lock().pop_front().unwrap_or(0)
    }

    pub(crate) fn add(&self, faults: &[u8]) {
        let mut queue = self.lock();
        queue.extend(faults);
        while queue.len() > KEPT {
            queue.pop_front();
        }
    }

    pub(crate) fn end(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
