//! What the hypervisor has of a machine, which can be made before it and outlive it.

use std::sync::Arc;

use goldcrest_memory::GuestRam;
use goldcrest_vcpu::{Hypervisor, Vm};

use super::{Machine, check_cpus, create_vcpus};
use crate::snapshot::{Cpus, Lazy, MachineState};
use crate::{ImageId, MonitorError, Outcome};

/// RAM, and what the hypervisor has of a machine.
pub(crate) struct Body<V: Vm> {
    pub(crate) ram: GuestRam,
    pub(crate) vm: Arc<V>,
    pub(crate) vcpus: Vec<V::Vcpu>,
    /// Whether the CPUs have run.
    pub(crate) are: Cpus,
    /// The image that RAM was, if there is one.
    pub(crate) image: Option<ImageId>,
    /// Who has the pages of RAM, if it is another process.
    pub(crate) lazy: Option<Lazy>,
}

impl<V: Vm> Body<V> {
    /// For a machine of this state, with new CPUs.
    pub(crate) fn new<H: Hypervisor<Vm = V>>(
        hypervisor: &H,
        vm: V,
        ram: GuestRam,
        state: &MachineState,
    ) -> Result<Self, MonitorError> {
        let cpus = u32::try_from(state.cpus.len()).unwrap_or(u32::MAX);
        check_cpus(hypervisor, cpus)?;
        let vcpus = create_vcpus(&vm, cpus)?;
        Ok(Self {
            ram,
            vm: Arc::new(vm),
            vcpus,
            are: Cpus::New,
            image: Some(state.memory.id),
            lazy: None,
        })
    }
}

impl<V: Vm> Machine<V> {
    /// Runs the machine to its end. What the hypervisor has of it is left; its devices are gone.
    pub(crate) fn run_to_body(mut self) -> (Result<Outcome, MonitorError>, Body<V>) {
        let outcome = self.run_once(self.timeout);
        let Self {
            subject,
            vm,
            vcpus,
            image,
            ..
        } = self;
        let body = Body {
            ram: subject.ram.clone(),
            vm,
            vcpus,
            are: Cpus::Used,
            image,
            lazy: None,
        };
        (outcome, body)
    }
}
