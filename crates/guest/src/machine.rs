//! What the image runs on: a Goldcrest monitor with its doorbells, or a PC with a serial port.
#![allow(unsafe_code, reason = "ports and the addresses behind doorbells")]

use core::sync::atomic::{AtomicBool, Ordering};

use goldcrest_abi::doorbell::{self, ConsoleWrite};

use crate::exclusive::Exclusive;
use crate::port;

/// The first serial port of a PC: a 16550.
const SERIAL: u16 = 0x3f8;
/// Its line status register.
const SERIAL_STATUS: u16 = SERIAL + 5;
/// The transmit holding register is empty.
const SERIAL_READY: u8 = 1 << 5;
/// There is a byte in the receiver buffer.
const SERIAL_RECEIVED: u8 = 1 << 0;
/// How often the status is read before a byte is sent all the same.
const SERIAL_PATIENCE: u32 = 10_000;
/// QEMU's `isa-debug-exit`, at the port that is usual for it.
const DEBUG_EXIT: u16 = 0xf4;
/// The command port of the keyboard controller.
const KEYBOARD_COMMAND: u16 = 0x64;
/// Its command to pulse the reset line.
const PULSE_RESET: u8 = 0xfe;

/// Whether a Goldcrest monitor listens at the doorbells.
static DOORBELLS: AtomicBool = AtomicBool::new(false);

/// The request behind the console doorbell: in the image, hence below 4 GiB, which a stack need not be.
static REQUEST: Exclusive<ConsoleWrite> = Exclusive::new(ConsoleWrite {
    address: 0,
    len: 0,
    reserved: 0,
});

/// Notes that there are doorbells: known without asking after direct entry.
pub(crate) fn set_doorbells() {
    DOORBELLS.store(true, Ordering::Relaxed);
}

/// Asks whether there are doorbells; where nothing listens, a port reads as all ones.
pub(crate) fn find_doorbells() {
    // SAFETY: nothing but Goldcrest's doorbells is known to live at this port, and reading them has no effect.
    if unsafe { port::read_u32(doorbell::IDENT) } == doorbell::IDENT_VALUE {
        set_doorbells();
    }
}

/// Whether there are doorbells.
pub(crate) fn has_doorbells() -> bool {
    DOORBELLS.load(Ordering::Relaxed)
}

/// Sends `bytes` to the console.
pub(crate) fn send(bytes: &[u8]) {
    if !has_doorbells() {
        bytes.iter().copied().for_each(send_serial);
        return;
    }
    for chunk in bytes.chunks(doorbell::CONSOLE_MAX as usize) {
        // A handler that interrupts right here has its text dropped rather than mixed into the interrupted request.
        REQUEST.try_with(|request| ring_console(request, chunk));
    }
}

fn ring_console(request: &mut ConsoleWrite, chunk: &[u8]) {
    request.address = chunk.as_ptr().expose_provenance() as u64;
    request.len = u32::try_from(chunk.len()).unwrap_or(doorbell::CONSOLE_MAX);
    let address = u32::try_from((&raw const *request).expose_provenance()).unwrap_or_default();
    // SAFETY: the monitor reads the request and the bytes that it names, both alive and exposed, before it returns;
    // all memory is mapped at its guest-physical address.
    unsafe { port::write_u32(doorbell::CONSOLE, address) };
}

fn send_serial(byte: u8) {
    // SAFETY: the first serial port is where a PC has it or nowhere; neither register reaches memory.
    unsafe {
        let mut patience = SERIAL_PATIENCE;
        while port::read_u8(SERIAL_STATUS) & SERIAL_READY == 0 && patience > 0 {
            patience -= 1;
        }
        port::write_u8(SERIAL, byte);
    }
}

/// A byte that has arrived at the serial port, if any has.
pub(crate) fn receive() -> Option<u8> {
    // SAFETY: as in `send_serial`.
    unsafe {
        let ready = port::read_u8(SERIAL_STATUS);
        // Where there is no port, it reads as all ones.
        (ready & SERIAL_RECEIVED != 0 && ready != 0xff).then(|| port::read_u8(SERIAL))
    }
}

/// Ends the machine with `status`.
///
/// On a PC that is up to what it has: QEMU's debug exit makes it `2 * status + 1`, else the machine is reset.
pub(crate) fn end(status: u32) -> ! {
    // SAFETY: both stop the machine, which touches nothing of ours that is still needed; a PC that has neither device
    // ignores the writes.
    unsafe {
        if has_doorbells() {
            port::write_u32(doorbell::EXIT, status);
        } else {
            port::write_u32(DEBUG_EXIT, status);
            port::write_u8(KEYBOARD_COMMAND, PULSE_RESET);
        }
    }
    loop {
        core::hint::spin_loop();
    }
}
