//! A machine: made from a configuration, run to its end.

mod body;
mod fittings;
mod marks;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use goldcrest_abi::boot_info::BootInfo;
use goldcrest_boot::{BootConfig, Hardware, Loaded, MmioDevice, Solo5Device};
use goldcrest_irq::Ioapic;
use goldcrest_memory::{GuestRam, MemoryConfig};
use goldcrest_vcpu::cpuid::Cpuid;
use goldcrest_vcpu::kvm::MSR_KVM_SYSTEM_TIME_NEW;
use goldcrest_vcpu::{Exit, Hypervisor, Vcpu, VcpuError, Vm};

use crate::cpu::Board;
use crate::events::{Deadline, EventThreads};
use crate::hypercalls;
use crate::snapshot::{Lazy, Lineage, MachineState, Recording, Saved, Subject};
use crate::{
    Control, GUEST, ImageId, Inventory, MachineConfig, MachineKind, MonitorError, Notice, OnReset,
    Outcome, RestoreConfig, Stage, Timeline, generation, solo5, virtio,
};

pub(crate) use body::Body;
use fittings::{Fittings, board};
use marks::guest_marks;

/// From this much RAM on, 1 GiB pages save more page tables than asking for them costs, and the processor must be
/// described: KVM takes one that is not for having 36 address bits.
const LARGE_MEMORY: u64 = 4 << 30;

/// Makes a machine from `config` and runs it to its end, again after a reset if so configured.
///
/// # Errors
///
/// [`MonitorError`] if it could not be made, or the host failed it.
pub fn run<H: Hypervisor>(hypervisor: &H, config: &MachineConfig) -> Result<Outcome, MonitorError> {
    let begun = Instant::now();
    loop {
        // A guest that resets itself again and again has no more time for it.
        let left = config.timeout.map(|t| t.saturating_sub(begun.elapsed()));
        match Machine::new(hypervisor, config)?.run_for(left)? {
            Outcome::Reset if config.on_reset == OnReset::Reboot => {
                tracing::info!(target: GUEST, "the guest resets its machine: it is made anew");
            }
            // A triple fault resets a PC, and kernels use it so.
            Outcome::Crashed { exit, .. }
                if exit == Exit::Shutdown && config.on_reset == OnReset::Reboot =>
            {
                tracing::info!(target: GUEST, "a triple fault resets the machine: it is made anew");
            }
            outcome => return Ok(outcome),
        }
    }
}

/// A machine that is ready to run.
pub struct Machine<V: Vm> {
    control: Arc<Control>,
    timeline: Option<Timeline>,
    timeout: Option<Duration>,
    vm: Arc<V>,
    vcpus: Vec<V::Vcpu>,
    board: Arc<Board>,
    events: Arc<EventThreads>,
    /// How the image was loaded, if it was.
    loaded: Option<Loaded>,
    /// What is saved of it.
    subject: Arc<Subject>,
    /// The image that its RAM was, if it was restored.
    image: Option<ImageId>,
    /// Where it is to be written which pages of that it touched.
    recording: Option<(Recording, Notice)>,
}

impl<V: Vm> Machine<V> {
    /// Makes the machine, with the image loaded and the first CPU at its first instruction.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if anything in the configuration is not possible.
    pub fn new<H: Hypervisor<Vm = V>>(
        hypervisor: &H,
        config: &MachineConfig,
    ) -> Result<Self, MonitorError> {
        let mark = |stage| {
            if let Some(timeline) = &config.timeline {
                timeline.mark(stage);
            }
        };
        check_cpus(hypervisor, config.cpus)?;
        let ram = GuestRam::new(&config.memory)?;
        mark(Stage::MemoryReserved);
        let vm = hypervisor.create_vm(&ram)?;
        mark(Stage::VmCreated);
        let mut vcpus = create_vcpus(&vm, config.cpus)?;
        mark(Stage::VcpuCreated);
        let large = config.memory.size >= LARGE_MEMORY;
        let gigabyte_pages = large && hypervisor.cpuid()?.has_gigabyte_pages();
        let tsc_khz = vcpus.first().map_or(0, Vcpu::tsc_khz);
        let mmio = virtio::announced(config.virtio.len())?;
        let (solo5, attached) = solo5::open(&config.solo5)?;
        let hardware = hardware(config, &mmio, &solo5);
        let loaded = load(config, &ram, &hardware, gigabyte_pages, tsc_khz)?;
        mark(Stage::ImageLoaded);
        let template = &config.cpu_template;
        if loaded.cpuid || large || config.cpus > 1 || !template.is_empty() {
            let mut cpuid = hypervisor.cpuid()?;
            template.apply(&mut cpuid)?;
            for (id, vcpu) in (0..).zip(&mut vcpus) {
                vcpu.set_cpuid(&cpuid.for_cpu(id, config.cpus))?;
            }
        }
        if let Some(vcpu) = vcpus.first_mut() {
            start(vcpu, &loaded, &ram)?;
        }
        for vcpu in &mut vcpus {
            template.set_msrs(vcpu)?;
        }
        let hypercalls = hypercalls::devices(config, &ram, &loaded, attached)?;
        let ioapic = Ioapic::new(vm.msi_sink());
        let fittings = Fittings {
            output: &config.output,
            input: config.input.as_ref(),
            control: &config.control,
            machine: config.machine,
            cpus: config.cpus,
            devices: &config.devices,
            virtio: &config.virtio,
        };
        let (board, events) = board(&fittings, &ram, &mmio, ioapic, hypercalls)?;
        mark(Stage::VcpuReady);
        tracing::info!(
            cpus = config.cpus,
            memory_mib = config.memory.size >> 20,
            devices = config.virtio.len(),
            protocol = ?loaded.protocol,
            "a machine is made"
        );
        let vm = Arc::new(vm);
        Ok(Self {
            control: config.control.clone(),
            timeline: config.timeline.clone(),
            timeout: config.timeout,
            vcpus,
            subject: subject(
                &board,
                ram,
                config.memory,
                &vm,
                config.cpus,
                (loaded.generation_id, Lineage::none(config.track_dirty)),
            ),
            vm,
            board,
            events,
            loaded: Some(loaded),
            image: None,
            recording: None,
        })
    }

    /// Makes the machine that a snapshot is of: when [`run`](Self::run), it goes on where it was saved.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if the files are not a snapshot, or anything that it needs is not possible here. No guest
    /// instruction has run then, and nothing is left of it.
    pub fn restore<H: Hypervisor<Vm = V>>(
        hypervisor: &H,
        config: &RestoreConfig,
    ) -> Result<Self, MonitorError> {
        let mark = |stage| {
            if let Some(timeline) = &config.machine.timeline {
                timeline.mark(stage);
            }
        };
        let Saved { state, ram, lazy } = Saved::open(config)?;
        mark(Stage::MemoryReserved);
        let vm = hypervisor.create_vm(&ram)?;
        mark(Stage::VmCreated);
        let mut body = Body::new(hypervisor, vm, ram, &state)?;
        body.lazy = lazy;
        mark(Stage::VcpuCreated);
        Self::assemble(body, &state, config)
    }

    /// The machine with this state, around what the hypervisor has of it.
    pub(crate) fn assemble(
        body: Body<V>,
        state: &MachineState,
        config: &RestoreConfig,
    ) -> Result<Self, MonitorError> {
        let Body {
            ram,
            vm,
            mut vcpus,
            are,
            image,
            lazy,
        } = body;
        let memory = state.memory.config;
        // Before anything is written to RAM.
        let lineage = Lineage::of(
            (&config.files, state.memory.id),
            &config.bases,
            &ram,
            config.track_dirty,
        );
        let cpus = u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
        let virtio = state.virtio(&config.machine)?;
        let fittings = Fittings {
            output: &config.machine.output,
            input: config.machine.input.as_ref(),
            control: &config.machine.control,
            machine: MachineKind::Standard,
            cpus,
            devices: &[],
            virtio: &virtio,
        };
        let mmio = virtio::announced(virtio.len())?;
        let ioapic = Ioapic::new(vm.msi_sink());
        let (board, events) = board(&fittings, &ram, &mmio, ioapic, Vec::new())?;
        let recording = image.filter(|_| config.record_working_set && lazy.is_none());
        let recording = recording.map(|image| Recording::new(&config.files, image));
        let begun = watch(lazy, &board, &events, config)?;
        state.restore(&board, (&mut vcpus, are), &*vm, &config.machine)?;
        if let Some(at) = state.generation_id {
            generation::change(&ram, at, &board.generation)?;
        }
        begun.store(true, Ordering::SeqCst);
        if let Some(Err(error)) = board.end.take() {
            return Err(error);
        }
        // What the guest or the host has left to be done.
        for device in &board.virtio {
            device.slot.wake();
        }
        board
            .serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .look_for_input();
        if config.machine.paused {
            config.machine.control.pause();
        }
        if let Some(timeline) = &config.machine.timeline {
            timeline.mark(Stage::VcpuReady);
        }
        tracing::info!(
            cpus,
            memory_mib = memory.size >> 20,
            devices = virtio.len(),
            paused = config.machine.paused,
            "a machine is restored"
        );
        Ok(Self {
            control: config.machine.control.clone(),
            timeline: config.machine.timeline.clone(),
            timeout: config.machine.timeout,
            vcpus,
            subject: subject(
                &board,
                ram,
                memory,
                &vm,
                cpus,
                (state.generation_id, lineage),
            ),
            vm,
            board,
            events,
            loaded: None,
            image,
            recording: recording.map(|recording| (recording, config.machine.notice.clone())),
        })
    }

    /// What it has.
    pub fn inventory(&self) -> Inventory {
        Inventory::of(&self.subject)
    }

    /// How the image was loaded; nothing for a machine that was restored.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.loaded.as_ref()
    }

    /// Runs the machine to its end, CPU 0 on this thread.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if the host failed it.
    pub fn run(self) -> Result<Outcome, MonitorError> {
        let timeout = self.timeout;
        self.run_for(timeout)
    }

    fn run_for(mut self, timeout: Option<Duration>) -> Result<Outcome, MonitorError> {
        self.run_once(timeout)
    }

    /// Runs it to its end: once.
    fn run_once(&mut self, timeout: Option<Duration>) -> Result<Outcome, MonitorError> {
        let Self {
            control,
            timeline,
            vcpus,
            board,
            events,
            loaded,
            subject,
            recording,
            ..
        } = self;
        let kickers: Vec<_> = vcpus.iter().map(Vcpu::kicker).collect();
        if let Some(first) = kickers.first() {
            board.wake.connect(first.clone());
        }
        if let Some(timeout) = timeout {
            let deadline = Deadline::new(timeout, control.clone())
                .map_err(events_error("set the time-out"))?;
            events
                .start(board.clone(), || Ok(Box::new(deadline)))
                .map_err(events_error("start the event loop"))?;
        }
        // From here on, all ways lead to the kickers being dropped: they keep the CPUs alive.
        control.attach(kickers);
        control.set_subject(Some(subject.clone()));
        run_cpus(vcpus, board);
        control.set_subject(None);
        board.control.counters.end(board);
        events.end();
        if let Some((recording, notice)) = recording
            && let Err(error) = recording.write(&subject.ram)
        {
            notice.say(&format!("the working set is not recorded: {error}"));
        }
        if let (Some(timeline), Some(vcpu)) = (timeline, vcpus.first()) {
            if let Some(loaded) = loaded {
                guest_marks(timeline, vcpu, loaded, board);
            }
            timeline.mark(Stage::MachineEnded);
        }
        control.attach(Vec::new());
        let result = board.end.take().unwrap_or(Err(MonitorError::NoCpu));
        tell_end(&result, board);
        result
    }
}

/// Says how the machine has ended, and what found nobody in it.
fn tell_end(result: &Result<Outcome, MonitorError>, board: &Board) {
    let [port_misses, memory_misses, doorbell_rejected] = board.misses();
    match result {
        Ok(outcome @ (Outcome::Crashed { .. } | Outcome::Violation(_))) => {
            tracing::warn!(%outcome, "the machine has ended");
        }
        Ok(outcome) => tracing::info!(%outcome, "the machine has ended"),
        Err(error) => tracing::error!(%error, "the machine has failed"),
    }
    tracing::debug!(
        port_misses,
        memory_misses,
        doorbell_rejected,
        "accesses that no device is for"
    );
}

/// Has a thread look whether memory that comes from another process does. What is given is to be set when others see what
/// the machine does.
fn watch(
    lazy: Option<Lazy>,
    board: &Arc<Board>,
    events: &EventThreads,
    config: &RestoreConfig,
) -> Result<Arc<AtomicBool>, MonitorError> {
    let Some(lazy) = lazy else {
        return Ok(Arc::default());
    };
    let (begun, watched) = (lazy.begun(), board.clone());
    let notice = config.machine.notice.clone();
    events
        .start_loop(board.clone(), move |stop| {
            lazy.watch(&stop, &watched, &notice)
        })
        .map_err(events_error("watch the guest's memory"))?;
    Ok(begun)
}

fn create_vcpus<V: Vm>(vm: &V, count: u32) -> Result<Vec<V::Vcpu>, VcpuError> {
    (0..count)
        .map(|id| vm.create_vcpu(id, &Cpuid::default()))
        .collect()
}

/// What can be saved of a machine; it keeps the hypervisor's part of it, by which devices signal interrupts.
fn subject<V: Vm>(
    board: &Arc<Board>,
    ram: GuestRam,
    memory: MemoryConfig,
    vm: &Arc<V>,
    cpus: u32,
    (generation_id, lineage): (Option<u64>, Lineage),
) -> Arc<Subject> {
    let vm = vm.clone();
    Arc::new(Subject {
        board: board.clone(),
        ram,
        memory,
        clock: Box::new(move || vm.clock()),
        cpus: usize::try_from(cpus).unwrap_or(usize::MAX),
        generation_id,
        lineage,
        stopped: Mutex::default(),
    })
}

fn run_cpus<C: Vcpu>(vcpus: &mut [C], board: &Board) {
    let Some((first, others)) = vcpus.split_first_mut() else {
        return;
    };
    thread::scope(|scope| {
        for (cpu, vcpu) in (1..).zip(others) {
            let started = thread::Builder::new()
                .name(format!("cpu{cpu}"))
                .spawn_scoped(scope, move || board.run_cpu(cpu, vcpu));
            if let Err(source) = started {
                board.events_failed("start a CPU's thread", source);
            }
        }
        board.run_cpu(0, first);
    });
}

fn load(
    config: &MachineConfig,
    ram: &GuestRam,
    hardware: &Hardware<'_>,
    gigabyte_pages: bool,
    tsc_khz: u64,
) -> Result<Loaded, MonitorError> {
    let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let boot = BootConfig {
        cmdline: &config.cmdline,
        initrd: config.initrd.as_ref(),
        modules: &config.modules,
        cpus: config.cpus,
        protocol: config.protocol,
        tsc_khz,
        wall_clock_ns: wall_clock
            .ok()
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or(0),
        generation_id: generation::fresh()?,
        gigabyte_pages,
        // Whether there is one shows when it is enabled.
        pvclock: true,
    };
    Ok(goldcrest_boot::load_with(
        &config.image,
        ram,
        &boot,
        hardware,
    )?)
}

/// What the guest is told of its devices.
fn hardware<'a>(
    config: &MachineConfig,
    mmio: &'a [MmioDevice],
    solo5: &'a [Solo5Device],
) -> Hardware<'a> {
    Hardware {
        serial: true,
        rtc: true,
        mmio,
        solo5,
        announce: config.announce,
        generation_interrupt: Some(generation::INTERRUPT),
        ..Hardware::default()
    }
}

fn check_cpus(hypervisor: &impl Hypervisor, cpus: u32) -> Result<(), MonitorError> {
    match cpus {
        1 => Ok(()),
        _ if cpus != 0 && cpus <= hypervisor.max_cpus() => Ok(()),
        _ => Err(MonitorError::Cpus {
            cpus,
            max: hypervisor.max_cpus(),
        }),
    }
}

/// Puts the first CPU where the image wants it.
fn start(vcpu: &mut impl Vcpu, loaded: &Loaded, ram: &GuestRam) -> Result<(), MonitorError> {
    vcpu.set_system_registers(&loaded.system)?;
    vcpu.set_registers(&loaded.registers)?;
    vcpu.set_msrs(&loaded.msrs)?;
    match (loaded.pvclock, loaded.boot_info) {
        (Some(page), Some(boot_info)) => {
            match vcpu.set_msrs(&[(MSR_KVM_SYSTEM_TIME_NEW, page | 1)]) {
                Err(VcpuError::Msr(_)) => {
                    // No kvmclock here: the guest goes by its time-stamp counter.
                    let field = boot_info + std::mem::offset_of!(BootInfo, pvclock) as u64;
                    Ok(ram.write(field, &0_u64.to_le_bytes())?)
                }
                result => Ok(result?),
            }
        }
        _ => Ok(()),
    }
}

fn events_error(what: &'static str) -> impl FnOnce(io::Error) -> MonitorError {
    move |source| MonitorError::Events { what, source }
}
