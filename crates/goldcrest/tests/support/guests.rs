//! Unikernels of a few instructions, for what the examples do not do. They start in ring 3, and have no trap handlers.

use tempfile::TempPath;

use super::file;
use super::images::{ElfBuilder, R, X, direct_note, segment};

const ENTRY: u64 = 0x10_0000;

const SERIAL: u16 = 0x3f8;
const SERIAL_INTERRUPTS: u16 = SERIAL + 1;
const EXIT: u16 = goldcrest_abi::doorbell::EXIT;
/// The reset register of the FADT.
const RESET: u16 = 0x602;
/// `isa-debug-exit`, as other monitors have it.
const DEBUG_EXIT: u16 = 0xf4;

/// `jmp .`
pub const FOR_EVER: [u8; 2] = [0xeb, 0xfe];
pub const UD2: [u8; 2] = [0x0f, 0x0b];

/// A unikernel of these instructions, one piece after the other.
pub fn guest(pieces: &[&[u8]]) -> TempPath {
    file(image(&pieces.concat()))
}

/// The same as bytes.
pub fn image(code: &[u8]) -> Vec<u8> {
    let text = segment(R | X, ENTRY, code, code.len().try_into().unwrap());
    ElfBuilder::new(ENTRY, vec![text])
        .direct(&direct_note(ENTRY))
        .build()
}

/// `mov dx, port; mov al, value; out dx, al`
fn out_byte(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// `mov dx, port; mov eax, value; out dx, eax`
fn out_long(port: u16, value: u32) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb8, a, b, c, d, 0xef]
}

pub fn print(byte: u8) -> Vec<u8> {
    out_byte(SERIAL, byte)
}

pub fn exit(status: u32) -> Vec<u8> {
    out_long(EXIT, status)
}

pub fn debug_exit(value: u32) -> Vec<u8> {
    out_long(DEBUG_EXIT, value)
}

pub fn reset() -> Vec<u8> {
    out_byte(RESET, 1)
}

/// Enables the serial port's interrupt for received data: the guest listens from then on.
pub fn listen() -> Vec<u8> {
    out_byte(SERIAL_INTERRUPTS, 1)
}

/// Says that it runs, and does nothing more.
pub fn spinning() -> TempPath {
    guest(&[&print(b'>'), &FOR_EVER])
}

/// Prints without an end.
pub fn chatty() -> TempPath {
    guest(&[
        &print(b'x'),
        &[0xee],       // again: out dx, al
        &[0xeb, 0xfd], // jmp again
    ])
}

/// Polls the serial port and sends back what it gets, which begins with `>`. `q` ends it with status 3, `c` crashes it.
pub fn echo() -> TempPath {
    let poll = [
        0xb2, 0xfd, // poll: mov dl, low(line status)
        0xec, // wait: in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xfb, // jz wait
        0xb2, 0xf8, // mov dl, low(data)
        0xec, // in al, dx
        0xee, // out dx, al
        0x3c, b'q', // cmp al, 'q'
        0x74, 0x06, // je quit
        0x3c, b'c', // cmp al, 'c'
        0x75, 0xed, // jne poll
        0x0f, 0x0b, // ud2
    ];
    // quit:
    guest(&[&print(b'>'), &poll, &exit(3)])
}

/// Polls the serial port a thousand times, throws away what it gets, and ends with status 5.
pub fn impatient() -> TempPath {
    guest(&[
        &[0x66, 0xba, 0xfd, 0x03], // mov dx, line status
        &[0xb9, 0xe8, 0x03, 0, 0], // mov ecx, 1000
        &[0xec],                   // again: in al, dx
        &[0xff, 0xc9],             // dec ecx
        &[0x75, 0xfb],             // jnz again
        &exit(5),
    ])
}

/// Prints what its keyboard sends, seven bits of each byte, after a `>`.
pub fn typist() -> TempPath {
    guest(&[
        &print(b'>'),
        &[0x66, 0xba, 0x64, 0x00], // again: mov dx, status
        &[0xec],                   // poll: in al, dx
        &[0xa8, 0x01],             // test al, 1
        &[0x74, 0xfb],             // jz poll
        &[0xb2, 0x60],             // mov dl, low(data)
        &[0xec],                   // in al, dx
        &[0x24, 0x7f],             // and al, 0x7f
        &[0x66, 0xba, 0xf8, 0x03], // mov dx, serial port
        &[0xee],                   // out dx, al
        &[0xeb, 0xeb],             // jmp again
    ])
}

/// Notifies the first virtio device 3,000 times of a queue that it does not have, and ends with status 4.
pub fn misusing() -> TempPath {
    guest(&[
        &[0xb8, 0x50, 0x00, 0x00, 0xd0], // mov eax, QueueNotify
        &[0xb9, 0xb8, 0x0b, 0, 0],       // mov ecx, 3000
        &[0xc7, 0x00, 7, 0, 0, 0],       // again: mov dword [rax], 7
        &[0xff, 0xc9],                   // dec ecx
        &[0x75, 0xf6],                   // jnz again
        &exit(4),
    ])
}

/// Writes to the first byte above 4 GiB, and ends with what it reads there: 9.
pub fn above_4_gib() -> TempPath {
    guest(&[
        &[0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0], // mov rax, 1 << 32
        &[0xc7, 0x00, 9, 0, 0, 0],             // mov dword [rax], 9
        &[0x8b, 0x00],                         // mov eax, [rax]
        &[0x66, 0xba, EXIT.to_le_bytes()[0], EXIT.to_le_bytes()[1]], // mov dx, EXIT
        &[0xef],                               // out dx, eax
    ])
}
