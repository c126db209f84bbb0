//! A guest that is saved, and goes on in another process.
//!
//! `floor --save FILE IMAGE` runs an image to its first byte of serial output and saves it: 128 MiB of RAM, zero pages as
//! holes, then a page with the registers. `floor --restore FILE` maps the RAM, sets the registers and runs to the next byte,
//! which it writes. `floor --restore FILE --count N` does so N times in one process, and prints instead how many
//! nanoseconds each took; with `--keep`, all are there until the last one is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, Result, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::image::PAGE;
use crate::kvm::{self, Io, Regs, Sregs, Vcpu, Vm};
use crate::ram::Ram;
use crate::{SERIAL, start};

/// Bytes of guest RAM.
const RAM_SIZE: usize = 128 << 20;
/// Bytes of the registers.
const STATE: usize = size_of::<Regs>() + size_of::<Sregs>();

/// Saves or restores, by the arguments that are left.
pub fn run(save: bool, mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let usage =
        || Error::other("usage: floor --save FILE IMAGE | --restore FILE [--count N [--keep]]");
    let file = arguments.next().ok_or_else(usage)?;
    match (save, arguments.next(), arguments.next()) {
        (true, Some(image), None) => save_to(&File::create(file)?, &image),
        (false, None, None) => {
            let byte = restore(kvm::open()?, &File::open(file)?)?;
            let mut stdout = std::io::stdout();
            stdout.write_all(&[byte])?;
            stdout.flush()
        }
        (false, Some(option), Some(count)) if option == "--count" => {
            let count = count.to_str().and_then(|count| count.parse().ok());
            let keep = arguments.next().is_some_and(|word| word == "--keep");
            many(&File::open(file)?, count.ok_or_else(usage)?, keep)
        }
        _ => Err(usage()),
    }
}

fn save_to(file: &File, image: &OsString) -> Result<()> {
    let ram = Ram::new(RAM_SIZE)?;
    let vcpu = start(image.as_ref(), b"", &ram)?;
    next_byte(&vcpu)?;
    let (regs, sregs) = vcpu.state()?;
    file.set_len(RAM_SIZE as u64 + PAGE)?;
    for at in (0..RAM_SIZE as u64).step_by(PAGE as usize) {
        let page = ram.slice(at, PAGE as usize)?;
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, at)?;
        }
    }
    let mut state = [0; STATE];
    // SAFETY: both are plain integers without padding, as their asserted sizes say, and the buffer is as large as both.
    unsafe {
        let at = state.as_mut_ptr();
        at.cast::<Regs>().write_unaligned(regs);
        at.add(size_of::<Regs>())
            .cast::<Sregs>()
            .write_unaligned(sregs);
    }
    file.write_all_at(&state, RAM_SIZE as u64)
}

/// A machine, up to its first byte.
fn restore_in(vm: &Vm, file: &File) -> Result<(Ram, Vcpu, u8)> {
    let ram = Ram::from_file(file, RAM_SIZE)?;
    vm.set_memory(&ram)?;
    let vcpu = vm.vcpu()?;
    let mut state = [0; STATE];
    file.read_exact_at(&mut state, RAM_SIZE as u64)?;
    // SAFETY: any bytes are valid integers, and the buffer has as many as both structures.
    let (regs, sregs) = unsafe {
        let at = state.as_ptr();
        (
            at.cast::<Regs>().read_unaligned(),
            at.add(size_of::<Regs>()).cast::<Sregs>().read_unaligned(),
        )
    };
    vcpu.set_registers(&regs, &sregs)?;
    let byte = next_byte(&vcpu)?;
    Ok((ram, vcpu, byte))
}

fn restore(kvm: i32, file: &File) -> Result<u8> {
    restore_in(&Vm::on(kvm)?, file).map(|(_, _, byte)| byte)
}

fn many(file: &File, count: usize, keep: bool) -> Result<()> {
    let kvm = kvm::open()?;
    for _ in 0..count {
        let begun = Instant::now();
        let vm = Vm::on(kvm)?;
        let (ram, vcpu, _) = restore_in(&vm, file)?;
        let took = begun.elapsed();
        println!("{}", took.as_nanos());
        if !keep {
            vm.close(vcpu)?;
            ram.unmap();
        }
    }
    Ok(())
}

/// Runs the guest up to its next byte of serial output.
fn next_byte(vcpu: &Vcpu) -> Result<u8> {
    loop {
        match vcpu.run()? {
            Io::Write {
                port: SERIAL,
                value,
            } => return Ok(value.to_le_bytes()[0]),
            Io::Write { .. } => {}
            Io::Read { data, .. } => data.fill(0xff),
        }
    }
}
