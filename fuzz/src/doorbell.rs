//! The doorbells, whose console requests lie in guest memory that the guest fills as it likes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Result, Unstructured};
use goldcrest_abi::doorbell::{BASE, CONSOLE, CONSOLE_MAX, EXIT, IDENT, IDENT_VALUE};
use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::Output;
use goldcrest_chipset::doorbell::{self, Doorbell};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::access::Access;

/// Two regions that touch, together more than a request can name; a hole; and a third.
const REGIONS: [(u64, usize); 3] = [(0, 0x2000), (0x2000, 0x1_1000), (0x1_4000, 0x1000)];
/// Address and length; what else a request has is reserved.
const REQUEST: usize = 12;
const CONSOLE_OFFSET: u64 = (CONSOLE - BASE) as u64;
const EXIT_OFFSET: u64 = (EXIT - BASE) as u64;

thread_local! {
    static MEMORY: GuestMemoryMmap = {
        let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
        GuestMemoryMmap::from_ranges(&regions).expect("it is small")
    };
}

/// Runs the target.
pub fn run(data: &[u8]) {
    MEMORY.with(|memory| {
        let mut dirty = Vec::new();
        let _ = drive(memory, &mut dirty, &mut Unstructured::new(data));
        for at in dirty {
            let _ = memory.write(&[0; REQUEST], at);
        }
    });
}

/// Keeps the bytes of the last write.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Vec<u8>>>);

impl Last {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Last {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `dirty` is where memory was written to.
fn drive(
    memory: &GuestMemoryMmap,
    dirty: &mut Vec<GuestAddress>,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let last = Last::default();
    let mut doorbell = Doorbell::new(memory.clone(), Output::new(last.clone()));
    while !input.is_empty() {
        match input.arbitrary::<u8>()? {
            // A request, or a part of one, somewhere: not all of it need be RAM.
            0xc0.. => {
                let at = GuestAddress(input.arbitrary::<u16>()?.into());
                let request = input.bytes(REQUEST)?;
                dirty.push(at);
                let _ = memory.write(request, at);
            }
            0x80.. => {
                let at: u16 = input.arbitrary()?;
                ring(&mut doorbell, memory, &last, at.into());
            }
            _ => access(
                &mut doorbell,
                &Access::take(input, doorbell::LEN.into())?,
                &last,
            ),
        }
    }
    Ok(())
}

/// Rings the console's bell; compares what comes out with what a plain reader of the request finds.
fn ring(doorbell: &mut Doorbell<GuestMemoryMmap>, memory: &GuestMemoryMmap, last: &Last, at: u32) {
    let rejected = doorbell.rejected();
    let effect = doorbell.write(CONSOLE_OFFSET, &at.to_le_bytes());
    assert!(matches!(effect, Effect::None), "{effect:?}");
    match requested(memory, at) {
        Some(bytes) => assert_eq!(last.take(), bytes),
        None => {
            assert_eq!(doorbell.rejected(), rejected + 1);
            assert!(last.take().is_empty());
        }
    }
}

fn requested(memory: &GuestMemoryMmap, at: u32) -> Option<Vec<u8>> {
    let mut request = [0; 16];
    memory
        .read_slice(&mut request, GuestAddress(at.into()))
        .ok()?;
    let address = u64::from_le_bytes(*request.first_chunk()?);
    let len = u32::from_le_bytes(*request[8..].first_chunk()?).min(CONSOLE_MAX);
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    memory.read_slice(&mut bytes, GuestAddress(address)).ok()?;
    Some(bytes)
}

fn access(doorbell: &mut Doorbell<GuestMemoryMmap>, access: &Access, last: &Last) {
    let outcome = access.apply(doorbell);
    match outcome.effect {
        Effect::Exit(status) => {
            assert_eq!(access.offset, EXIT_OFFSET);
            assert_eq!(access.written(), status.to_le_bytes());
        }
        ref effect => assert!(matches!(effect, Effect::None), "{effect:?}"),
    }
    if access.offset == u64::from(IDENT - BASE) && outcome.read().len() == 4 {
        assert_eq!(outcome.read(), IDENT_VALUE.to_le_bytes());
    } else {
        assert!(outcome.read().iter().all(|byte| *byte == 0xff));
    }
    assert!(last.take().len() <= CONSOLE_MAX as usize);
}
