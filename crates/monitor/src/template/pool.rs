//! Machines' parts in the hypervisor, made ahead on a thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use goldcrest_vcpu::{Hypervisor, Vm};

use super::{Blank, CloneConfig, Spent, Template};
use crate::{Machine, MonitorError};

/// A few [`Blank`]s of a template, which a thread of its own makes again when they are taken.
///
/// A blank costs the host what an idle virtual machine does: a mapping, descriptors, and some hundred KiB in the kernel.
pub struct Pool<H: Hypervisor> {
    template: Arc<Template>,
    hypervisor: H,
    size: usize,
    shared: Arc<Shared<H::Vm>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<V: Vm> {
    shelf: Mutex<Shelf<V>>,
    changed: Condvar,
}

struct Shelf<V: Vm> {
    ready: VecDeque<Blank<V>>,
    /// To be cleaned.
    spent: Vec<Spent<V>>,
    ended: bool,
}

impl<V: Vm> Shared<V> {
    fn lock(&self) -> MutexGuard<'_, Shelf<V>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room, and gives what is to be cleaned for it, if there is anything; nothing if there is no
    /// need any more.
    fn room(&self, size: usize) -> Option<Option<Spent<V>>> {
        let full = |shelf: &mut Shelf<V>| !shelf.ended && shelf.ready.len() >= size;
        let shelf = self.changed.wait_while(self.lock(), full);
        let mut shelf = shelf.unwrap_or_else(PoisonError::into_inner);
        (!shelf.ended).then(|| shelf.spent.pop())
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
                spent: Vec::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let mut pool = Self {
            template,
            hypervisor,
            size,
            shared,
            thread: None,
        };
        let (template, hypervisor) = (pool.template.clone(), pool.hypervisor.clone());
        let shared = pool.shared.clone();
        let thread = thread::Builder::new().name("clones".into());
        pool.thread = Some(thread.spawn(move || {
            while let Some(spent) = shared.room(size) {
                let cleaned = spent.and_then(|spent| template.clean(spent).ok());
                let made = cleaned.map_or_else(|| template.prepare(&hypervisor), Ok);
                // Whoever wants a machine makes it then, and is told what is wrong.
                let Ok(blank) = made else {
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

impl<H: Hypervisor> Pool<H> {
    /// Takes what is left of a machine, to make another of it. As many are kept as there can be blanks.
    pub fn give_back(&self, spent: Spent<H::Vm>) {
        let mut shelf = self.shared.lock();
        if shelf.spent.len() < self.size {
            shelf.spent.push(spent);
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
