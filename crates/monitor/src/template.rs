//! Many machines from one snapshot.
//!
//! A [`Template`] is a snapshot that was read and checked once. Machines that are made from it map its memory file
//! privately, so that they share its page cache and have of their own what they write. What takes longest, the
//! hypervisor's part of a machine, can be made ahead by a [`Pool`], and used again: [`Template::reset`] puts a machine
//! that has ended back to where all machines of the template start.

mod config;
mod pool;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use goldcrest_memory::GuestRam;
use goldcrest_memory::image::Layers;
use goldcrest_memory::working_set::WorkingSet;
use goldcrest_vcpu::{Hypervisor, Vm};

pub use config::CloneConfig;
pub use pool::Pool;

use crate::machine::Body;
use crate::snapshot::{Chain, Cpus, MachineState, load_working_set};
use crate::{Machine, MonitorError, Outcome, RestoreConfig, SnapshotError, SnapshotFiles, Stage};

/// A snapshot from which machines are made.
///
/// ```no_run
/// use goldcrest_monitor::{CloneConfig, Output, SnapshotFiles, Template};
/// use goldcrest_vcpu::kvm::Kvm;
///
/// let kvm = Kvm::open()?;
/// let template = Template::open(&SnapshotFiles::in_directory("frozen"))?;
/// let machine = template.clone_machine(&kvm, CloneConfig::default())?;
/// let (outcome, spent) = machine.run_and_keep();
/// println!("the first ended: {}", outcome?);
/// // The same again, in the same virtual machine.
/// let machine = template.reset(spent, CloneConfig::default())?;
/// println!("the second ended: {}", machine.run()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Template {
    files: SnapshotFiles,
    bases: Vec<PathBuf>,
    state: MachineState,
    layers: Layers,
    /// Whether CPUs have taken the state.
    taken: AtomicBool,
    /// Pages that machines have before they touch them.
    working_set: Option<WorkingSet>,
}

/// The hypervisor's part of a machine that was not made yet: RAM, mapped, and CPUs.
pub struct Blank<V: Vm>(Body<V>);

/// What is left of a machine that has ended, and from which another can be made ([`Template::reset`]). Until then, or
/// until it is dropped, it has the memory that the guest wrote.
pub struct Spent<V: Vm>(Body<V>);

impl Template {
    /// Reads a snapshot's state, and opens its memory file. The memory is not read, and not compared with its checksums:
    /// [`SnapshotInfo::verify`](crate::SnapshotInfo::verify) does that.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if the files are not a snapshot.
    pub fn open(files: &SnapshotFiles) -> Result<Self, SnapshotError> {
        Self::open_with(files, &[])
    }

    /// As [`open`](Self::open), of a snapshot that is the difference to others, with directories where those are that are
    /// not where they were when it was made. Where what has changed is scattered over RAM, each machine copies a part of
    /// it: [`flatten`](crate::flatten) a snapshot of which many are made.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn open_with(files: &SnapshotFiles, bases: &[PathBuf]) -> Result<Self, SnapshotError> {
        let Chain { state, layers, .. } = Chain::open(files, bases)?;
        Ok(Self {
            files: files.clone(),
            bases: bases.to_vec(),
            working_set: load_working_set(files, &state.memory)?,
            state,
            layers,
            taken: AtomicBool::new(false),
        })
    }

    /// Does not have pages that a run before touched be there before they are needed, although they were
    /// [recorded](crate::RestoreConfig::record_working_set).
    #[must_use]
    pub fn without_working_set(self) -> Self {
        Self {
            working_set: None,
            ..self
        }
    }

    /// Makes a machine: when it is [run](Machine::run), it goes on where the snapshot was taken.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if anything that it needs is not possible here. No guest instruction has run then.
    pub fn clone_machine<H: Hypervisor>(
        &self,
        hypervisor: &H,
        config: CloneConfig,
    ) -> Result<Machine<H::Vm>, MonitorError> {
        self.fill(self.prepare(hypervisor)?, config)
    }

    /// Makes what a machine needs of the hypervisor, ahead of it.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if the host or the hypervisor refuses.
    pub fn prepare<H: Hypervisor>(&self, hypervisor: &H) -> Result<Blank<H::Vm>, MonitorError> {
        let ram = GuestRam::from_layers(&self.state.memory.config, &self.layers)?;
        self.populate(&ram);
        let vm = hypervisor.create_vm(&ram)?;
        Body::new(hypervisor, vm, ram, &self.state).map(Blank)
    }

    /// As [`clone_machine`](Self::clone_machine), of what was made ahead.
    ///
    /// # Errors
    ///
    /// As for that; and [`SnapshotError::NotOfTemplate`] if it is of another template.
    pub fn fill<V: Vm>(
        &self,
        blank: Blank<V>,
        config: CloneConfig,
    ) -> Result<Machine<V>, MonitorError> {
        self.assemble(self.own(blank.0)?, config)
    }

    /// Makes a machine of one that has ended. Nothing of what happened in that is in this one: RAM is what the snapshot
    /// has, devices are new ones with the snapshot's state, and all that the hypervisor keeps of CPUs is set anew.
    ///
    /// # Errors
    ///
    /// As for [`fill`](Self::fill). What was left of the other is gone then.
    pub fn reset<V: Vm>(
        &self,
        spent: Spent<V>,
        config: CloneConfig,
    ) -> Result<Machine<V>, MonitorError> {
        self.fill(self.clean(spent)?, config)
    }

    /// The first half of [`reset`](Self::reset), for which nobody has to wait: RAM is the snapshot's again, and what the
    /// guest wrote is given back to the host. CPUs are put back by [`fill`](Self::fill).
    ///
    /// # Errors
    ///
    /// As for [`reset`](Self::reset).
    pub fn clean<V: Vm>(&self, spent: Spent<V>) -> Result<Blank<V>, MonitorError> {
        let body = self.own(spent.0)?;
        body.ram.revert_to(&self.layers)?;
        self.populate(&body.ram);
        body.vm.forget_translations()?;
        Ok(Blank(body))
    }

    fn populate(&self, ram: &GuestRam) {
        if let Some(set) = &self.working_set {
            ram.populate(set);
        }
    }

    fn assemble<V: Vm>(
        &self,
        mut body: Body<V>,
        config: CloneConfig,
    ) -> Result<Machine<V>, MonitorError> {
        if body.are == Cpus::New && self.taken.load(Ordering::Relaxed) {
            body.are = Cpus::Others;
        }
        if let Some(timeline) = &config.timeline {
            for stage in [Stage::MemoryReserved, Stage::VmCreated, Stage::VcpuCreated] {
                timeline.mark(stage);
            }
        }
        let state = self.state.adapted(&config)?;
        let config = RestoreConfig {
            bases: self.bases.clone(),
            machine: config,
            ..RestoreConfig::new(self.files.clone())
        };
        let machine = Machine::assemble(body, &state, &config)?;
        self.taken.store(true, Ordering::Relaxed);
        Ok(machine)
    }

    /// What was made for a machine, if it was one of this template.
    fn own<V: Vm>(&self, body: Body<V>) -> Result<Body<V>, SnapshotError> {
        let expected = self.state.memory.id;
        match body.image == Some(expected) {
            true => Ok(body),
            false => Err(SnapshotError::NotOfTemplate {
                found: body.image,
                expected,
            }),
        }
    }
}

impl<V: Vm> Machine<V> {
    /// As [`run`](Self::run), and leaves what a [`Template`] of the machine's snapshot can [reset](Template::reset),
    /// whatever the outcome. A machine that is paused is stopped before ([`Control::stop`](crate::Control::stop)).
    pub fn run_and_keep(self) -> (Result<Outcome, MonitorError>, Spent<V>) {
        let (outcome, body) = self.run_to_body();
        (outcome, Spent(body))
    }
}

#[cfg(test)]
mod tests;
