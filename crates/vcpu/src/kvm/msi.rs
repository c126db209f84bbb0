//! Interrupt messages to the local APICs in the kernel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use goldcrest_irq::{Msi, MsiSink};
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_irq_routing_msi__bindgen_ty_1, kvm_msi,
};
use kvm_ioctls::VmFd;

/// Pins of the IOAPIC whose routes the kernel looks at to report ends of interrupt.
pub(super) const IOAPIC_PINS: u32 = 24;

pub(super) struct KvmMsiSink {
    vm: Arc<VmFd>,
    /// Messages whose end of interrupt is to be reported, by pin.
    watched: Mutex<BTreeMap<u32, Msi>>,
}

impl KvmMsiSink {
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            watched: Mutex::default(),
        }
    }
}

impl MsiSink for KvmMsiSink {
    fn signal(&self, message: Msi) {
        // The kernel refuses what no local APIC takes (a guest's doing): such a message is lost, as on a bus.
        let _ = self.vm.signal_msi(kvm_msi {
            address_lo: message.address_lo,
            address_hi: message.address_hi,
            data: message.data,
            ..kvm_msi::default()
        });
    }

    fn watch_eoi(&self, source: u32, message: Option<Msi>) {
        if source >= IOAPIC_PINS {
            return;
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match message {
            Some(message) => watched.insert(source, message),
            None => watched.remove(&source),
        };
        if before == message {
            return;
        }
        let routes: Vec<_> = watched.iter().map(|(pin, msi)| route(*pin, *msi)).collect();
        // At most as many as there are pins, so both always succeed; if not, level-triggered interrupts come once.
        if let Ok(routing) = KvmIrqRouting::from_entries(&routes) {
            let _ = self.vm.set_gsi_routing(&routing);
        }
    }
}

fn route(pin: u32, message: Msi) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: message.address_lo,
                address_hi: message.address_hi,
                data: message.data,
                __bindgen_anon_1: kvm_irq_routing_msi__bindgen_ty_1 { pad: 0 },
            },
        },
        ..kvm_irq_routing_entry::default()
    }
}
