//! A CPU of a machine: its accesses, and its run loop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use goldcrest_bus::{Bus, Effect};
use goldcrest_chipset::{Doorbell, I8042, Rtc, Serial, SystemClock};
use goldcrest_irq::{Ioapic, IrqLine, LineSink, Pic};
use goldcrest_memory::GuestView;
use goldcrest_vcpu::{Exit, ExitHandler, Flow, Kick, Report, Vcpu, VcpuError, VcpuState};
use vm_memory::GuestMemoryMmap;

use crate::control::Task;
use crate::counters::Reason;
use crate::snapshot::MSR_TSC;
use crate::virtio::Placed;
use crate::{Control, MonitorError, Outcome};

/// `KVM_SYSTEM_EVENT_SHUTDOWN` and `KVM_SYSTEM_EVENT_RESET`.
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;

/// What the CPUs of a machine share.
pub(crate) struct Board {
    pub(crate) ports: Bus,
    pub(crate) memory: Bus,
    pub(crate) ioapic: Ioapic,
    pub(crate) pic: Pic,
    pub(crate) serial: Arc<Mutex<Serial>>,
    pub(crate) rtc: Arc<Mutex<Rtc<SystemClock>>>,
    pub(crate) i8042: Arc<Mutex<I8042>>,
    pub(crate) virtio: Vec<Placed>,
    /// Tells a kernel that its generation identifier is another one.
    pub(crate) generation: IrqLine,
    /// Names of devices whose state nobody knows.
    pub(crate) unsaved: Vec<String>,
    /// The CPUs' states, as they were saved last.
    pub(crate) saved: Mutex<Vec<(u32, Result<VcpuState, VcpuError>)>>,
    pub(crate) wake: Arc<WakeCpu>,
    pub(crate) view: GuestView,
    pub(crate) doorbell: Arc<Mutex<Doorbell<GuestMemoryMmap>>>,
    pub(crate) control: Arc<Control>,
    /// Set once, by whoever ends the machine.
    pub(crate) end: End,
}

/// The wire from the 8259 pair to CPU 0, which must look at it even while it runs guest code.
#[derive(Default)]
pub(crate) struct WakeCpu(OnceLock<Arc<dyn Kick>>);

impl WakeCpu {
    pub(crate) fn connect(&self, kicker: Arc<dyn Kick>) {
        let connected = self.0.set(kicker);
        debug_assert!(connected.is_ok(), "a machine runs once");
    }
}

impl LineSink for WakeCpu {
    fn set_source(&self, _: u32, up: bool) {
        if let (true, Some(kicker)) = (up, self.0.get()) {
            kicker.kick();
        }
    }
}

/// How the machine ended, once it has.
#[derive(Default)]
pub(crate) struct End {
    result: Mutex<Option<Result<Outcome, MonitorError>>>,
    reached: AtomicBool,
}

impl End {
    pub(crate) fn reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    pub(crate) fn take(&self) -> Option<Result<Outcome, MonitorError>> {
        self.result
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Board {
    /// Ends the machine; the first result counts.
    pub(crate) fn finish(&self, result: Result<Outcome, MonitorError>) {
        self.end
            .result
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(result);
        self.end.reached.store(true, Ordering::SeqCst);
        self.control.kick_all();
    }

    /// Runs a CPU until the machine ends.
    pub(crate) fn run_cpu(&self, cpu: u32, vcpu: &mut impl Vcpu) {
        self.control.cpu_starts();
        let mut io = CpuIo {
            board: self,
            wired_to_pic: cpu == 0,
            effect: Effect::None,
        };
        loop {
            let finished = || self.end.reached();
            self.control
                .wait_while_paused(finished, |task| self.perform(task, cpu, vcpu, &mut io));
            if let Some(reason) = self.control.stopped() {
                self.finish(Ok(Outcome::Stopped(reason)));
            }
            if self.end.reached() {
                break;
            }
            let result = vcpu.run(&mut io);
            if let Some(reason) = Reason::of(&result) {
                self.control.counters.exit(reason);
            }
            self.returned(result, cpu, vcpu, &mut io);
        }
        self.control.cpu_ends();
    }

    /// A CPU does not run guest code any more, for now or for ever.
    fn returned(
        &self,
        result: Result<Exit, VcpuError>,
        cpu: u32,
        vcpu: &impl Vcpu,
        io: &mut CpuIo<'_>,
    ) {
        let result = match result {
            // A write that was given up is a part of stopping.
            _ if self.control.stopped().is_some() => return,
            Ok(Exit::Kicked) => return,
            Ok(Exit::SystemEvent(SYSTEM_EVENT_SHUTDOWN)) => Ok(Outcome::PowerOff),
            Ok(Exit::SystemEvent(SYSTEM_EVENT_RESET)) => Ok(Outcome::Reset),
            Ok(Exit::Requested) => match std::mem::replace(&mut io.effect, Effect::None) {
                Effect::None => return,
                Effect::PowerOff => Ok(Outcome::PowerOff),
                Effect::Reset => Ok(Outcome::Reset),
                Effect::Exit(status) => Ok(Outcome::Exit(status)),
                Effect::HostFailed(error) => Err(MonitorError::Output(error)),
                Effect::Violation(what) => Ok(Outcome::Violation(what)),
            },
            Ok(exit) => Ok(Outcome::Crashed {
                report: Box::new(Report::new(cpu, exit.clone(), vcpu, &self.view)),
                exit,
            }),
            Err(error) => Err(error.into()),
        };
        self.finish(result);
    }

    /// Does what a snapshot needs of a CPU that waits, or is about to.
    fn perform(&self, task: Task, cpu: u32, vcpu: &mut impl Vcpu, io: &mut CpuIo<'_>) {
        match task {
            Task::NoteClocks => {
                // Where there is none, what is saved of the clocks is what they show then.
                if let Ok(counter) = vcpu.msr(MSR_TSC) {
                    self.control.note_clocks(cpu, counter);
                }
            }
            Task::FinishAccess => {
                let finished = vcpu.finish_access(io);
                if let Some(result) = finished.transpose() {
                    self.returned(result, cpu, vcpu, io);
                }
            }
            Task::Save => {
                let state = vcpu.save();
                let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
                saved.push((cpu, state));
            }
        }
    }

    /// What found nobody: accesses to ports and to memory, and requests by doorbell.
    pub(crate) fn misses(&self) -> [u64; 3] {
        // Who is at work on a request for long is not waited for.
        let rejected = self.doorbell.try_lock().map_or(0, |door| door.rejected());
        [self.ports.misses(), self.memory.misses(), rejected]
    }

    /// The event loop failed: nothing would arrive any more.
    pub(crate) fn events_failed(&self, what: &'static str, source: io::Error) {
        self.finish(Err(MonitorError::Events { what, source }));
    }
}

struct CpuIo<'a> {
    board: &'a Board,
    wired_to_pic: bool,
    /// Why the flow was broken.
    effect: Effect,
}

impl CpuIo<'_> {
    /// Breaks the flow at the first effect.
    fn flow(&mut self, effect: Effect) -> Flow {
        self.effect = effect;
        if self.ends() {
            Flow::Break(())
        } else {
            Flow::Continue(())
        }
    }

    fn count(&self, reason: Reason) {
        self.board.control.counters.exit(reason);
    }

    /// Whether something has happened that the rest of a string instruction must not follow.
    fn ends(&self) -> bool {
        !matches!(self.effect, Effect::None)
    }
}

impl ExitHandler for CpuIo<'_> {
    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        self.count(Reason::PortRead);
        self.board.ports.read(port.into(), data);
    }

    fn port_write(&mut self, port: u16, data: &[u8]) -> Flow {
        self.count(Reason::PortWrite);
        if self.ends() {
            return Flow::Break(());
        }
        let effect = self.board.ports.write(port.into(), data);
        self.flow(effect)
    }

    fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        self.count(Reason::MemoryRead);
        self.board.memory.read(address, data);
    }

    fn memory_write(&mut self, address: u64, data: &[u8]) -> Flow {
        self.count(Reason::MemoryWrite);
        let effect = self.board.memory.write(address, data);
        self.flow(effect)
    }

    fn end_of_interrupt(&mut self, vector: u8) {
        self.count(Reason::EndOfInterrupt);
        self.board.ioapic.end_of_interrupt(vector);
    }

    fn has_external_interrupt(&mut self) -> bool {
        self.wired_to_pic && self.board.pic.output()
    }

    fn acknowledge_external_interrupt(&mut self) -> Option<u8> {
        self.count(Reason::ExternalInterrupt);
        self.board
            .pic
            .output()
            .then(|| self.board.pic.acknowledge())
    }
}
