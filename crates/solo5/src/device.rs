//! The device at the ports.

use std::ops::Range;

use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::Output;
use vm_memory::GuestMemoryMmap;

use crate::block::Direction;
use crate::memory::Memory;
use crate::spec::{self, EXIT_ABORT, HALT_COOKIE_MAX, MAX_FRAME, hypercall};
use crate::{Host, Link, Misuse, Net, Storage};

/// What is behind a handle.
pub enum Attached {
    /// Nothing: the first entry of a manifest is reserved.
    None,
    /// A block device.
    Block(Box<dyn Storage>),
    /// A network card.
    Net(Net),
}

/// Devices by handle.
#[derive(Default)]
pub(crate) struct Handles(Vec<Attached>);

impl Handles {
    pub(crate) fn device(&mut self, handle: u64) -> Option<&mut Attached> {
        self.0.get_mut(usize::try_from(handle).ok()?)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Attached> {
        self.0.iter_mut()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &dyn Link> {
        self.0.iter().filter_map(|attached| match attached {
            Attached::Net(net) => Some(&*net.link),
            _ => None,
        })
    }
}

/// The hypercalls of one guest. There is no state to save.
///
/// Reads of its ports give all ones.
pub struct Hypercalls<H> {
    pub(crate) memory: Memory,
    pub(crate) output: Output,
    pub(crate) host: H,
    pub(crate) attached: Handles,
    on_abort: Box<dyn FnMut(&str) + Send>,
    /// A frame, or a piece of the console's bytes.
    pub(crate) buffer: Box<[u8]>,
}

impl<H: Host> Hypercalls<H> {
    /// Hypercalls of a guest with this memory and without devices.
    pub fn new(memory: GuestMemoryMmap, output: Output, host: H) -> Self {
        Self {
            memory: Memory::new(memory),
            output,
            host,
            attached: Handles::default(),
            on_abort: Box::new(|_| {}),
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
        }
    }

    /// Gives the guest devices: the place of each is its handle. No more than 64 can be polled.
    pub fn with_devices(mut self, devices: Vec<Attached>) -> Self {
        self.attached = Handles(devices);
        self
    }

    /// Has no hypercall write to these guest-physical ranges.
    pub fn with_read_only(mut self, ranges: Vec<Range<u64>>) -> Self {
        self.memory.protect(ranges);
        self
    }

    /// Has `told` called with a line about where the guest was when it aborts.
    pub fn on_abort(mut self, told: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_abort = Box::new(told);
        self
    }

    fn call(&mut self, number: u64, data: &[u8]) -> Result<Effect, Misuse> {
        let at = <[u8; 4]>::try_from(data)
            .map(u32::from_le_bytes)
            .map_err(|_| Misuse::Width { width: data.len() })?;
        let at = u64::from(at);
        let done = match number {
            hypercall::WALLTIME => self.walltime(at),
            hypercall::PUTS => return self.puts(at),
            hypercall::POLL => {
                return Ok(match self.poll(at)? {
                    Ok(()) => Effect::None,
                    Err(error) => Effect::HostFailed(error),
                });
            }
            hypercall::BLOCK_WRITE => self.block(at, Direction::Write),
            hypercall::BLOCK_READ => self.block(at, Direction::Read),
            hypercall::NET_WRITE => self.net_write(at),
            hypercall::NET_READ => self.net_read(at),
            hypercall::HALT => return self.halt(at),
            _ => Err(Misuse::Number { number }),
        };
        done.map(|()| Effect::None)
    }

    fn walltime(&self, at: u64) -> Result<(), Misuse> {
        // It has to be RAM, although what is there does not matter.
        let _: spec::Walltime = self.memory.argument(at)?;
        let nanos = self.host.wall_clock().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.memory.write("walltime", at, &nanos.to_le_bytes())
    }

    fn puts(&mut self, at: u64) -> Result<Effect, Misuse> {
        let call: spec::Puts = self.memory.argument(at)?;
        let (data, len) = (call.data.get(), call.len.get());
        self.memory.check("puts", data, len)?;
        let mut done = 0;
        while done < len && !self.host.is_stopped() {
            let piece = usize::try_from(len - done).unwrap_or(usize::MAX);
            let piece = piece.min(self.buffer.len());
            let bytes = self.buffer.get_mut(..piece).unwrap_or_default();
            self.memory.read("puts", data.saturating_add(done), bytes)?;
            if let Err(error) = self.output.write(bytes) {
                return Ok(Effect::HostFailed(error));
            }
            done = done.saturating_add(u64::try_from(piece).unwrap_or(u64::MAX));
        }
        Ok(Effect::None)
    }

    /// The status is the low byte of the guest's, as a process's is that of what it returns.
    fn halt(&mut self, at: u64) -> Result<Effect, Misuse> {
        let call: spec::Halt = self.memory.argument(at)?;
        let [status, ..] = call.exit_status.get().to_le_bytes();
        let cookie = call.cookie.get();
        if cookie != 0 {
            self.memory.check("halt", cookie, HALT_COOKIE_MAX)?;
        }
        if status == EXIT_ABORT {
            let line = match cookie {
                0 => "the guest aborted".into(),
                _ => trap_line(&self.memory.argument(cookie)?),
            };
            (self.on_abort)(&line);
        }
        Ok(Effect::Exit(status.into()))
    }
}

fn trap_line(regs: &spec::TrapRegs) -> String {
    let spec::TrapRegs {
        cr2,
        ec,
        rip,
        rflags,
        rsp,
        ..
    } = regs;
    format!(
        "the guest aborted by a trap at rip {rip:#x}, rsp {rsp:#x}, rflags {rflags:#x}, error code {ec:#x}, cr2 {cr2:#x}"
    )
}

impl<H: Host> Device for Hypercalls<H> {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match self.call(offset, data) {
            Ok(effect) => effect,
            Err(misuse) => Effect::Violation(misuse.to_string()),
        }
    }
}
