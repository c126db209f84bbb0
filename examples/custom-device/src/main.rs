//! A device of one's own: written and tested without a hypervisor, then put into a machine.
//!
//! [`adder`] is the device, a state machine that knows no more than its registers and the guest's memory. [`registers`]
//! is what it and its driver share; the driver is the unikernel `examples/unikernels/src/bin/custom-device.rs`, which
//! includes the same file. All that is left to do here is to say where in the machine the device is. From the root of
//! the repository:
//!
//! ```sh
//! cargo build --release --manifest-path examples/unikernels/Cargo.toml
//! cargo run -p custom-device -- examples/unikernels/target/release/custom-device
//! ```

mod adder;
mod registers;

use std::env;
use std::error::Error;
use std::io::stdout;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use goldcrest_boot::Image;
use goldcrest_bus::shared;
use goldcrest_chipset::Output;
use goldcrest_monitor::{CustomDevice, MachineConfig, Outcome, Place};
use goldcrest_vcpu::kvm::Kvm;

use adder::Adder;

/// At ports, where direct entry lets ring 3 reach it; it does not map memory where no RAM is.
const PLACE: Place = Place::Ports {
    first: registers::PORT,
    len: adder::LEN,
};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("custom-device: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: custom-device IMAGE");
        return Ok(ExitCode::from(2));
    };
    // The machine makes the device when it starts, with what it is connected to: here the guest's memory, to be read.
    // What the host wants to know of it is shared.
    let total = Arc::new(AtomicU64::new(0));
    let shown = total.clone();
    let adder = CustomDevice::new("adder", PLACE, move |wiring| {
        shared(Adder::new(wiring.ram.view(), total.clone()))
    });
    let config = MachineConfig {
        output: Output::new(stdout()),
        devices: vec![adder],
        ..MachineConfig::new(Image::open(path)?)
    };
    let outcome = goldcrest_monitor::run(&Kvm::open()?, &config)?;
    let total = shown.load(Ordering::Relaxed);
    println!("On the host: the adder added up {total} bytes; {outcome}.");
    Ok(match outcome {
        Outcome::Exit(status) => u8::try_from(status).unwrap_or(u8::MAX).into(),
        Outcome::PowerOff => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
