//! Hypercalls as a guest makes them, rightly and wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use goldcrest_bus::{Bus, Effect};
use goldcrest_chipset::{Capture, Output};
use goldcrest_hermit::{Hypercalls, spec::port};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 0x40_0000;
const PAGE_TABLES: u64 = 0x1_0000;
const ARG: u64 = 0x10_0000;
const DATA: u64 = 0x11_0000;

struct Guest {
    memory: GuestMemoryMmap,
    ports: Bus,
    console: Capture,
}

impl Guest {
    fn new(args: &[&str]) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let (output, console) = Output::capture();
        let hypercalls = Hypercalls::new(memory.clone(), output)
            .with_args(args.iter().map(|arg| (*arg).to_owned()))
            .with_page_tables(PAGE_TABLES);
        let mut ports = Bus::new("port");
        for (range, device) in hypercalls.ports() {
            ports.add("hermit", range, device).unwrap();
        }
        Self {
            memory,
            ports,
            console,
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    fn call_at(&self, port: u16, at: u64) -> Effect {
        let at = u32::try_from(at).unwrap();
        self.ports.write(port.into(), &at.to_le_bytes())
    }

    /// Makes a hypercall with these bytes as its argument.
    fn call(&self, port: u16, params: &[u8]) -> Effect {
        self.put(ARG, params);
        self.call_at(port, ARG)
    }

    #[track_caller]
    fn goes_on(&self, port: u16, params: &[u8]) {
        let effect = self.call(port, params);
        assert!(matches!(effect, Effect::None), "{effect:?}");
    }

    /// Maps a page of a level: 0 for 4 KiB, 1 for 2 MiB.
    fn map(&self, virt: u64, phys: u64, level: u32) {
        let mut table = PAGE_TABLES;
        for upper in (level + 1..4).rev() {
            let next = table + 0x1000;
            self.put(
                table + (virt >> (12 + 9 * upper) & 0x1ff) * 8,
                &(next | 3).to_le_bytes(),
            );
            table = next;
        }
        let large = if level > 0 { 0x80 } else { 0 };
        self.put(
            table + (virt >> (12 + 9 * level) & 0x1ff) * 8,
            &(phys | 3 | large).to_le_bytes(),
        );
    }
}

#[track_caller]
fn violation(effect: Effect) -> String {
    match effect {
        Effect::Violation(what) => what,
        effect => panic!("{effect:?}"),
    }
}

fn write_params(fd: i32, buf: u64, len: u64) -> Vec<u8> {
    [
        &fd.to_le_bytes()[..],
        &buf.to_le_bytes(),
        &len.to_le_bytes(),
    ]
    .concat()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn bytes_and_buffers_are_printed() {
    let guest = Guest::new(&[]);
    for data in [&b"a"[..], b"b\0\0\0"] {
        let effect = guest.ports.write(port::UART.into(), data);
        assert!(matches!(effect, Effect::None), "{effect:?}");
    }
    let text = vec![b'x'; 10_000];
    guest.put(DATA, &text);
    guest.goes_on(port::SERIAL_WRITE_BUFFER, &words(&[DATA, 10_000]));
    guest.goes_on(port::SERIAL_WRITE_BUFFER, &words(&[u64::MAX, 0]));
    assert_eq!(guest.console.take(), [&b"ab"[..], &text].concat());
}

#[test]
fn a_guest_is_told_its_arguments() {
    let guest = Guest::new(&["/hermit", "-v", "ä"]);
    guest.goes_on(port::CMDSIZE, &[0xaa; 1032]);
    let expected = [3i32, 8, 3, 3].map(i32::to_le_bytes).concat();
    assert_eq!(guest.get::<16>(ARG)[..], expected);
    assert_eq!(guest.get::<4>(ARG + 16), [0xaa; 4]);
    assert_eq!(guest.get::<4>(ARG + 4 + 512), [0; 4]);

    let places = [DATA + 0x100, DATA + 0x200, DATA + 0x300];
    guest.put(DATA, &words(&places));
    guest.goes_on(port::CMDVAL, &words(&[DATA, u64::MAX]));
    assert_eq!(&guest.get::<8>(places[0]), b"/hermit\0");
    assert_eq!(&guest.get::<3>(places[1]), b"-v\0");
    assert_eq!(&guest.get::<3>(places[2]), "ä\0".as_bytes());
}

#[test]
fn exit_ends_with_the_low_byte_of_the_status() {
    let guest = Guest::new(&[]);
    for (status, code) in [(0i32, 0), (3, 3), (-1, 255), (256, 0)] {
        let effect = guest.call(port::EXIT, &status.to_le_bytes());
        assert!(matches!(effect, Effect::Exit(n) if n == code), "{effect:?}");
    }
}

#[test]
fn there_are_no_files() {
    let guest = Guest::new(&[]);
    let open = [&words(&[DATA])[..], &[1, 0, 0, 0, 2, 0, 0, 0, 9, 9, 9, 9]].concat();
    guest.goes_on(port::FILE_OPEN, &open);
    assert_eq!(guest.get::<20>(ARG)[..16], open[..16]);
    assert_eq!(guest.get::<4>(ARG + 16), (-2i32).to_le_bytes());
    guest.goes_on(port::FILE_UNLINK, &[&words(&[DATA])[..], &[9; 4]].concat());
    assert_eq!(guest.get::<4>(ARG + 8), (-2i32).to_le_bytes());
    guest.goes_on(port::FILE_CLOSE, &[0; 8]);
    assert_eq!(guest.get::<4>(ARG + 4), (-1i32).to_le_bytes());
    guest.goes_on(port::FILE_READ, &[0; 28]);
    assert_eq!(guest.get::<8>(ARG + 20), (-1i64).to_le_bytes());
    guest.goes_on(port::FILE_LSEEK, &[0; 16]);
    assert_eq!(guest.get::<8>(ARG + 4), (-1i64).to_le_bytes());
    // Not even those that the monitor has open.
    for fd in [-1, 0, 3, 4, i32::MAX] {
        guest.goes_on(port::FILE_WRITE, &write_params(fd, DATA, 4));
    }
    assert_eq!(guest.console.take(), b"");
}

#[test]
fn standard_output_is_the_console_by_virtual_addresses() {
    let guest = Guest::new(&[]);
    let virt = 0x7654_3212_3ffe;
    guest.map(virt & !0xfff, DATA, 0);
    guest.map((virt & !0xfff) + 0x1000, DATA + 0x8000, 0);
    guest.put(DATA + 0xffe, b"he");
    guest.put(DATA + 0x8000, b"llo");
    guest.goes_on(port::FILE_WRITE, &write_params(1, virt, 5));
    guest.map(0x4000_0000, 0x20_0000, 1);
    guest.put(0x20_0000 + 0x1234, b" world");
    guest.goes_on(port::FILE_WRITE, &write_params(2, 0x4000_1234, 6));
    assert_eq!(guest.console.take(), b"hello world");
}

#[test]
fn virtual_addresses_that_lead_nowhere_end_the_guest() {
    let guest = Guest::new(&[]);
    guest.map(0x1000, RAM, 0);
    let what = violation(guest.call(port::FILE_WRITE, &write_params(1, 0x1000, 1)));
    assert!(
        what.contains("1 bytes at 0x400000, which are not RAM"),
        "{what}"
    );
    for virt in [0, 0x2000, u64::MAX, 1 << 63] {
        let what = violation(guest.call(port::FILE_WRITE, &write_params(1, virt, 1)));
        let expected = format!("virtual address {virt:#x}, which its page tables do not map");
        assert!(what.contains(&expected), "{what}");
    }
    // A table outside of RAM, and tables that contain themselves.
    guest.put(PAGE_TABLES, &(RAM | 3).to_le_bytes());
    violation(guest.call(port::FILE_WRITE, &write_params(1, 0, 1)));
    guest.put(PAGE_TABLES, &(PAGE_TABLES | 3).to_le_bytes());
    let first = guest.get::<1>(PAGE_TABLES);
    guest.goes_on(port::FILE_WRITE, &write_params(1, 0, 1));
    assert_eq!(guest.console.take(), first);
}

#[test]
fn what_is_not_ram_and_what_has_not_32_bits_ends_the_guest() {
    let guest = Guest::new(&["x"]);
    for (number, len) in [
        (port::FILE_WRITE, 20),
        (port::FILE_OPEN, 20),
        (port::FILE_CLOSE, 8),
        (port::FILE_READ, 28),
        (port::EXIT, 4),
        (port::FILE_LSEEK, 16),
        (port::CMDSIZE, 1032),
        (port::CMDVAL, 16),
        (port::FILE_UNLINK, 12),
        (port::SERIAL_WRITE_BUFFER, 16),
    ] {
        for at in [RAM - len + 1, u64::from(u32::MAX)] {
            let what = violation(guest.call_at(number, at));
            let expected = format!("names {len} bytes at {at:#x}, which are not RAM");
            assert!(what.contains(&expected), "{what}");
        }
        for width in [1, 2] {
            let what = violation(guest.ports.write(number.into(), &vec![0; width]));
            assert!(what.contains(&format!("by {width} bytes")), "{what}");
        }
        let effect = guest.ports.write(u64::from(number) + 1, &[0]);
        assert!(matches!(effect, Effect::None), "{effect:?}");
    }
    for params in [[RAM - 1, 2], [u64::MAX, 1], [0, u64::MAX]] {
        violation(guest.call(port::SERIAL_WRITE_BUFFER, &words(&params)));
    }
    guest.put(DATA, &words(&[RAM - 1]));
    for argv in [DATA, RAM - 7, u64::MAX] {
        violation(guest.call(port::CMDVAL, &words(&[argv, 0])));
    }
    assert_eq!(guest.console.take(), b"");
}
