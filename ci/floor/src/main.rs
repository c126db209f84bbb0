//! Runs a direct-entry image (`goldcrest-abi`) with only the calls that KVM cannot do without.
//!
//! This is the floor under `goldcrest run`: no argument parsing, no checks beyond those that keep this process sound,
//! no threads, no devices but the doorbells and a transmit-only serial port. What Goldcrest takes beyond it is what
//! Goldcrest costs.
//!
//! `floor IMAGE [ARGUMENT...]` ends with the guest's status. `floor --save FILE IMAGE` and `floor --restore FILE` are
//! the floor under snapshots ([`frozen`]).

#![no_main]

mod frozen;
mod image;
mod kvm;
mod ram;
mod tables;

use std::fs::File;
use std::io::{Error, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use goldcrest_abi::doorbell;

use crate::kvm::{Io, Vcpu, Vm};
use crate::ram::Ram;

/// Bytes of guest RAM.
const RAM_SIZE: usize = 64 << 20;
/// The transmit register of the first serial port.
const SERIAL: u16 = 0x3f8;

/// The C library's entry: what the standard library does before a Rust `main` (signal handlers, an alternate stack,
/// reading `/proc/self/maps`) is no part of the floor.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    match run() {
        Ok(status) => i32::try_from(status.min(255)).unwrap_or(255),
        Err(error) => {
            eprintln!("floor: {error}");
            1
        }
    }
}

fn run() -> Result<u32> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments
        .next()
        .ok_or_else(|| Error::other("usage: floor IMAGE [ARGUMENT...]"))?;
    if path == "--save" || path == "--restore" {
        return frozen::run(path == "--save", arguments).map(|()| 0);
    }
    let cmdline = arguments.collect::<Vec<_>>().join(" ".as_ref());

    let ram = Ram::new(RAM_SIZE)?;
    let vcpu = start(path.as_ref(), cmdline.as_bytes(), &ram)?;
    serve(&vcpu, &ram)
}

/// A vCPU at the first instruction of an image.
fn start(path: &Path, cmdline: &[u8], ram: &Ram) -> Result<Vcpu> {
    let image = image::load(&File::open(path)?, ram)?;
    let vm = Vm::new()?;
    vm.set_memory(ram)?;
    let vcpu = vm.vcpu()?;
    if image.note.flags & goldcrest_abi::note::FLAG_PVCLOCK != 0 {
        vcpu.enable_pvclock(tables::PVCLOCK)?;
    }
    let state = tables::write(ram, &image, cmdline, &vcpu)?;
    vcpu.set_state(&state)?;
    Ok(vcpu)
}

/// Runs the guest until it asks to end.
fn serve(vcpu: &Vcpu, ram: &Ram) -> Result<u32> {
    let mut stdout = std::io::stdout();
    loop {
        match vcpu.run()? {
            Io::Write {
                port: doorbell::EXIT,
                value,
            } => return Ok(value),
            Io::Write {
                port: doorbell::CONSOLE,
                value,
            } => {
                let request = ram.slice(u64::from(value), size_of::<doorbell::ConsoleWrite>())?;
                let address = u64::from_le_bytes(request[0..8].try_into().unwrap_or_default());
                let len = u32::from_le_bytes(request[8..12].try_into().unwrap_or_default());
                let len = len.min(doorbell::CONSOLE_MAX) as usize;
                stdout.write_all(ram.slice(address, len)?)?;
                stdout.flush()?;
            }
            Io::Write {
                port: SERIAL,
                value,
            } => {
                stdout.write_all(&value.to_le_bytes()[..1])?;
                stdout.flush()?;
            }
            Io::Write { .. } => {}
            Io::Read {
                port: doorbell::IDENT,
                data,
            } => fill(data, &doorbell::IDENT_VALUE.to_le_bytes()),
            Io::Read { data, .. } => data.fill(0xff),
        }
    }
}

/// Copies as much of `value` as a port read asked for.
fn fill(data: &mut [u8], value: &[u8]) {
    let len = data.len().min(value.len());
    data[..len].copy_from_slice(&value[..len]);
}
