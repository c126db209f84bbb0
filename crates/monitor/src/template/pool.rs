//! Machines' parts in the hypervisor, made ahead on a thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use goldcrest_vcpu::{Hypervisor, Vm};

use super::{Blank, CloneConfig, Template};
use crate::{Machine, MonitorError};

/// A few [`Blank`]s of a template, which a thread of its own makes again when they are taken.
///
/// A blank costs the host what an idle virtual machine does: a mapping, descriptors, and some hundred KiB in the kernel.
pub struct Pool<H: Hypervisor> {
    template: Arc<Template>,
    hypervisor: H,
    shared: Arc<Shared<H::Vm>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<V: Vm> {
    shelf: Mutex<Shelf<V>>,
    changed: Condvar,
}

struct Shelf<V: Vm> {
    ready: VecDeque<Blank<V>>,
    ended: bool,
}

impl<V: Vm> Shared<V> {
    fn lock(&self) -> MutexGuard<'_, Shelf<V>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room, false if there is no need any more.
    fn has_room(&self, size: usize) -> bool {
        let full = |shelf: &mut Shelf<V>| !shelf.ended && shelf.ready.len() >= size;
        let shelf = self.changed.wait_while(self.lock(), full);
        !shelf.unwrap_or_else(PoisonError::into_inner).ended
    }
}

impl<H> Pool<H>
where
    H: Hypervisor + Clone + Send + 'static,
    <H::Vm as Vm>::Vcpu: 'static,
{
    /// Has `size` of them made from now on.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn new(template: Arc<Template>, hypervisor: H, size: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            shelf: Mutex::new(Shelf {
                ready: VecDeque::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let mut pool = Self {
            template,
            hypervisor,
            shared,
            thread: None,
        };
        let (template, hypervisor) = (pool.template.clone(), pool.hypervisor.clone());
        let shared = pool.shared.clone();
        let thread = thread::Builder::new().name("clones".into());
        pool.thread = Some(thread.spawn(move || {
            while shared.has_room(size) {
                // Whoever wants a machine is told why there is none; one is tried again for the next.
                let Ok(blank) = template.prepare(&hypervisor) else {
                    break;
                };
                shared.lock().ready.push_back(blank);
                shared.changed.notify_all();
            }
        })?);
        Ok(pool)
    }

    /// How many are there now.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }

    /// Makes a machine as [`Template::clone_machine`] does, of one that is there or, if there is none, from the
    /// beginning.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn clone_machine(&self, config: CloneConfig) -> Result<Machine<H::Vm>, MonitorError> {
        let blank = self.shared.lock().ready.pop_front();
        self.shared.changed.notify_all();
        match blank {
            Some(blank) => self.template.fill(blank, config),
            None => self.template.clone_machine(&self.hypervisor, config),
        }
    }
}

impl<H: Hypervisor> Drop for Pool<H> {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
