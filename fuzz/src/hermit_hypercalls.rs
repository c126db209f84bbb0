//! The hypercalls of Hermit, whose arguments and page tables lie in guest memory that the guest fills as it likes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Bus, Effect};
use goldcrest_chipset::Output;
use goldcrest_hermit::Hypercalls;
use goldcrest_hermit::spec::port;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Two regions that touch, a hole, and a third.
const REGIONS: [(u64, usize); 3] = [(0, 0x3000), (0x3000, 0x3000), (0x8000, 0x1000)];
const END: u64 = 0x9000;
const PAGE_TABLES: u64 = 0x1000;
/// The longest bytes that a call can print: a virtual address may be mapped to the same page again and again.
const MOST: u64 = 0x10_0000;

thread_local! {
    static MEMORY: GuestMemoryMmap = {
        let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
        GuestMemoryMmap::from_ranges(&regions).expect("it is small")
    };
}

/// Runs the target.
pub fn run(data: &[u8]) {
    MEMORY.with(|memory| {
        for (start, len) in REGIONS {
            let zeros = vec![0; len];
            memory
                .write_slice(&zeros, GuestAddress(start))
                .expect("it is RAM");
        }
        let _ = drive(memory, &mut Unstructured::new(data));
    });
}

/// Counts what is printed.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<u64>>);

impl Console {
    fn count(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drive(memory: &GuestMemoryMmap, input: &mut Unstructured<'_>) -> Result<()> {
    let console = Console::default();
    let count = console.clone();
    let hypercalls = Hypercalls::new(memory.clone(), Output::new(console.clone()))
        .with_args(["guest", "-v", "x y"].map(str::to_owned))
        .with_page_tables(PAGE_TABLES)
        .give_up_when(move || count.count() > MOST);
    let mut ports = Bus::new("port");
    for (range, device) in hypercalls.ports() {
        ports.add("hermit", range, device).expect("they lie apart");
    }
    while !input.is_empty() {
        match input.arbitrary::<u8>()? {
            0x80.. => {
                let at = (u64::from(input.arbitrary::<u16>()?) % END) & !7;
                let word = match input.arbitrary::<u8>()? {
                    // An entry of a page table, a file, an address.
                    page @ 0..0x40 => u64::from(page % 0xa) << 12 | 3,
                    small @ 0x40..0x80 => u64::from(small & 7),
                    0x80..0xf0 => u64::from(input.arbitrary::<u16>()?),
                    _ => input.arbitrary()?,
                };
                let _ = memory.write_slice(&word.to_le_bytes(), GuestAddress(at));
            }
            choice => {
                let port = port::ALL[usize::from(choice) % port::ALL.len()];
                let address = u32::from(input.arbitrary::<u16>()?).to_le_bytes();
                let width = if choice & 0x40 == 0 {
                    4
                } else {
                    1 + usize::from(choice & 1)
                };
                check(&ports, port, &address[..width]);
            }
        }
        if console.count() > MOST {
            break;
        }
    }
    Ok(())
}

fn check(ports: &Bus, port: u16, data: &[u8]) {
    match ports.write(port.into(), data) {
        Effect::None => {}
        Effect::Exit(status) => assert!(port == port::EXIT && status < 256),
        Effect::Violation(what) => assert!(!what.is_empty() && !what.contains('\n')),
        effect => panic!("{effect:?}"),
    }
    let mut read = [0; 4];
    ports.read(port.into(), &mut read);
    assert_eq!(read, [0xff; 4]);
}
