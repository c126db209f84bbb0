//! Saved state of a device behind the MMIO transport.

use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::mmio::Selects;
use crate::queue::QueueLayout;
use crate::spec::{feature, mmio as reg, status};
use crate::{Mmio, VirtioDevice};

/// A queue: what the driver has set, and how far the device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Entries.
    pub size: u32,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// Whether it is in use.
    pub ready: bool,
    /// Whether it cannot be set up before it is reset.
    pub stopped: bool,
    /// The next available entry to take, counted modulo 2^16.
    pub next_available: u16,
    /// The next used entry to fill.
    pub next_used: u16,
    /// `next_used` when it was last decided whether to interrupt.
    pub signalled: u16,
}

/// The registers, and the device behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioState<S> {
    /// Device status.
    pub status: u8,
    /// Features that the driver has taken.
    pub driver_features: u64,
    /// `DeviceFeaturesSel`.
    pub device_features_sel: u32,
    /// `DriverFeaturesSel`.
    pub driver_features_sel: u32,
    /// `QueueSel`.
    pub queue_sel: u32,
    /// `InterruptStatus`.
    pub interrupt_status: u32,
    /// `ConfigGeneration`.
    pub config_generation: u32,
    /// The queues.
    pub queues: Vec<QueueState>,
    /// The device.
    pub device: S,
}

fn refuse(what: &'static str, value: u64, limit: &'static str) -> RestoreError {
    RestoreError {
        kind: "virtio-mmio",
        what,
        value,
        limit,
    }
}

/// A device must be [quiesced](Mmio::quiesce) before it is saved. It is restored into one that was just made with the
/// same configuration: what has been put back when an error is found is undone by resetting it.
impl<D: VirtioDevice + Snapshot> Snapshot for Mmio<D> {
    type State = MmioState<D::State>;
    const KIND: &'static str = "virtio-mmio";
    const VERSION: u16 = 1;

    fn save(&self) -> Self::State {
        MmioState {
            status: self.core.status,
            driver_features: self.core.driver_features,
            device_features_sel: self.selects.device_features,
            driver_features_sel: self.selects.driver_features,
            queue_sel: self.selects.queue,
            interrupt_status: self.interrupt.status(),
            config_generation: self.core.generation,
            queues: self
                .core
                .queues
                .iter()
                .map(|queue| QueueState {
                    size: queue.layout.size,
                    descriptors: queue.layout.descriptors,
                    available: queue.layout.available,
                    used: queue.layout.used,
                    ready: queue.ready,
                    stopped: queue.stopped,
                    next_available: queue.next_available,
                    next_used: queue.next_used,
                    signalled: queue.signalled(),
                })
                .collect(),
            device: self.core.device.save(),
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<(), RestoreError> {
        self.check(&state)?;
        let (generation, reasons) = (self.core.generation, state.interrupt_status);
        self.core.set_status(0);
        let result = self.put_back(state);
        if result.is_err() {
            self.core.set_status(0);
            self.core.generation = generation;
            self.selects = Selects::default();
        }
        self.interrupt
            .restore(if result.is_ok() { reasons } else { 0 });
        // The host may not have let the device go on, which its driver is to hear of.
        self.signal();
        result
    }
}

impl<D: VirtioDevice + Snapshot> Mmio<D> {
    fn check(&self, state: &MmioState<D::State>) -> Result<(), RestoreError> {
        let [a, d, f, ok] = [
            status::ACKNOWLEDGE,
            status::DRIVER,
            status::FEATURES_OK,
            status::DRIVER_OK,
        ];
        let by_driver = state.status & (a | d | f | ok);
        if ![0, a, a | d, a | d | f, a | d | f | ok].contains(&by_driver)
            || state.status & !(a | d | f | ok | status::DEVICE_NEEDS_RESET | status::FAILED) != 0
        {
            return Err(refuse("status", state.status.into(), "out of order"));
        }
        let agreed = state.status & status::FEATURES_OK != 0;
        let features = state.driver_features;
        if agreed && features & !self.core.spec().features != 0 {
            return Err(refuse("features", features, "not all are offered"));
        }
        if agreed && features & feature::VERSION_1 == 0 {
            return Err(refuse("features", features, "VERSION_1 is missing"));
        }
        if agreed && !self.core.accepts(features) {
            return Err(refuse("features", features, "one needs another"));
        }
        let count = state.queues.len() as u64;
        if state.queues.len() != self.core.queues.len() {
            return Err(refuse("queues", count, "not as many as the device has"));
        }
        if state.queues.iter().any(|queue| queue.ready && !agreed) {
            return Err(refuse("status", state.status.into(), "a queue is ready"));
        }
        let bits = reg::INT_USED_BUFFER | reg::INT_CONFIG_CHANGE;
        if state.interrupt_status & !bits != 0 {
            let value = state.interrupt_status.into();
            return Err(refuse("interrupt status", value, "has reserved bits"));
        }
        for queue in state.queues.iter().filter(|queue| queue.ready) {
            let size = u16::try_from(queue.size).unwrap_or(0);
            if queue.next_used.wrapping_sub(queue.signalled) > size {
                let value = queue.signalled.into();
                return Err(refuse("signalled", value, "more than a queue behind"));
            }
        }
        Ok(())
    }

    fn put_back(&mut self, state: MmioState<D::State>) -> Result<(), RestoreError> {
        self.core.driver_features = state.driver_features;
        self.core.generation = state.config_generation;
        for (index, saved) in state.queues.iter().enumerate() {
            if let Some(queue) = self.core.queues.get_mut(index) {
                queue.layout = QueueLayout {
                    size: saved.size,
                    descriptors: saved.descriptors,
                    available: saved.available,
                    used: saved.used,
                };
                queue.stopped = saved.stopped;
            }
            if saved.ready && self.core.restart_queue(index).is_err() {
                return Err(refuse("queue", index as u64, "cannot be a queue"));
            }
            if let Some(queue) = self.core.queues.get_mut(index) {
                queue.restore_indexes(saved.next_available, saved.next_used, saved.signalled);
                // What was made available while the device was saved, and notified of to nobody.
                queue.backlog = queue.ready;
            }
        }
        self.core.device.restore(state.device)?;
        self.core.status = state.status;
        self.core.reactivate();
        self.selects = Selects {
            device_features: state.device_features_sel,
            driver_features: state.driver_features_sel,
            queue: state.queue_sel,
        };
        Ok(())
    }
}
