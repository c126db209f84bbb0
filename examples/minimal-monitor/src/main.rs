//! A whole virtual machine monitor in one file: to be read in a few minutes, and copied.
//!
//! It boots a unikernel, or Linux, on one CPU. What the guest prints goes to standard output, and the status that it
//! ends with is this program's too. From the root of the repository:
//!
//! ```sh
//! cargo build --release --manifest-path examples/unikernels/Cargo.toml
//! cargo run -p minimal-monitor -- examples/unikernels/target/release/hello "a command line"
//! ```
//!
//! Six crates do the work and do not know each other's business: `memory` is the guest's RAM, `boot` puts an image into
//! it, `vcpu` runs the code, and `bus`, `irq` and `chipset` are what the code finds when it looks around. A monitor
//! introduces them to each other, and then waits for the guest to end.

use std::error::Error;
use std::io::stdout;
use std::process::ExitCode;
use std::{env, iter};

use goldcrest_boot::{BootConfig, Image, load};
use goldcrest_bus::{Bus, BusError, Effect, Range, shared};
use goldcrest_chipset::{Doorbell, Output, Power, Serial, doorbell, power, serial};
use goldcrest_irq::{Ioapic, ioapic};
use goldcrest_memory::{GuestRam, MemoryConfig};
use goldcrest_vcpu::kvm::Kvm;
use goldcrest_vcpu::{Exit, ExitHandler, Flow, Hypervisor, Report, Vcpu, Vm};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("minimal-monitor: {error}");
        for cause in iter::successors(error.source(), |&cause| cause.source()) {
            eprintln!("  because: {cause}");
        }
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let Some(image) = args.next() else {
        eprintln!("usage: minimal-monitor IMAGE [COMMAND-LINE [INITRD]]");
        return Ok(ExitCode::from(2));
    };
    let cmdline = args.next().unwrap_or_default();
    let initrd = args.next();

    // The machine: RAM, of which the host provides a page when the guest first touches it, and one CPU.
    let ram = GuestRam::new(&MemoryConfig::default())?;
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm(&ram)?;
    let mut vcpu = vm.create_vcpu(0, &kvm.cpuid()?.for_cpu(0, 1))?;

    // The guest: `load` recognizes the image's format and maps it into RAM. What comes back is plain data: the state
    // from which a CPU starts, here on the guest's own first instruction, or at Linux's 64-bit entry.
    let image = Image::open(image)?;
    let initrd = initrd.map(Image::open).transpose()?;
    let config = BootConfig {
        cmdline: cmdline.to_str().ok_or("the command line is not UTF-8")?,
        initrd: initrd.as_ref(),
        tsc_khz: vcpu.tsc_khz(),
        ..BootConfig::default()
    };
    let guest = load(&image, &ram, &config)?;
    vcpu.set_system_registers(&guest.system)?;
    vcpu.set_registers(&guest.registers)?;
    vcpu.set_msrs(&guest.msrs)?;

    // Its life: `run` comes back when the board asked for it, or when the guest cannot go on.
    let mut board = Board::new(&ram, Ioapic::new(vm.msi_sink()))?;
    loop {
        match vcpu.run(&mut board)? {
            Exit::Kicked => {} // by a signal that did not end us
            Exit::Requested => break,
            exit => return Err(Report::new(0, exit, &vcpu, &ram.view()).to_string().into()),
        }
    }
    match board.effect {
        Effect::Exit(status) => Ok(u8::try_from(status).unwrap_or(u8::MAX).into()),
        Effect::HostFailed(error) => Err(error.into()),
        Effect::Violation(what) => Err(what.into()),
        Effect::None | Effect::PowerOff | Effect::Reset => Ok(ExitCode::SUCCESS),
    }
}

/// What surrounds the CPU: two buses with devices, and the interrupt controller that they share.
struct Board {
    ports: Bus,
    memory: Bus,
    ioapic: Ioapic,
    /// What a device wants of the machine, once one does.
    effect: Effect,
}

impl Board {
    fn new(ram: &GuestRam, ioapic: Ioapic) -> Result<Self, BusError> {
        // A unikernel prints and ends by the doorbell, which reads what to print from RAM. The others are for Linux: a
        // serial console, and the registers that turn the machine off.
        let output = Output::new(stdout());
        let serial = Serial::new(ioapic.line(serial::IRQ), output.clone());
        let doorbell = Doorbell::new(ram.memory().clone(), output);
        let mut ports = Bus::new("port");
        ports.add("serial", serial::RANGE, shared(serial))?;
        ports.add("doorbell", doorbell::RANGE, shared(doorbell))?;
        ports.add("power", power::RANGE, shared(Power::default()))?;
        let mut memory = Bus::new("memory");
        let range = Range::new(ioapic::ADDRESS, ioapic::LEN)?;
        memory.add("ioapic", range, shared(ioapic.clone()))?;
        Ok(Self {
            ports,
            memory,
            ioapic,
            effect: Effect::None,
        })
    }

    /// Breaks the flow, so that `run` comes back, if a write had an effect beyond its device.
    fn flow(&mut self, effect: Effect) -> Flow {
        self.effect = effect;
        match self.effect {
            Effect::None => Flow::Continue(()),
            _ => Flow::Break(()),
        }
    }
}

/// The CPU brings here what it cannot do itself.
impl ExitHandler for Board {
    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }
    fn port_write(&mut self, port: u16, data: &[u8]) -> Flow {
        let effect = self.ports.write(port.into(), data);
        self.flow(effect)
    }
    fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        self.memory.read(address, data);
    }
    fn memory_write(&mut self, address: u64, data: &[u8]) -> Flow {
        let effect = self.memory.write(address, data);
        self.flow(effect)
    }
    fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }
}
