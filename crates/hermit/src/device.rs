//! The devices at the ports.

use std::sync::{Arc, Mutex, PoisonError};

use goldcrest_bus::{Device, Effect, Range, shared};
use goldcrest_chipset::Output;
use vm_memory::GuestMemoryMmap;

use crate::Misuse;
use crate::memory::Memory;
use crate::spec::{self, MAX_ARGS, NO_ENTRY, Params, port};

/// Bytes that are copied at a time.
const PIECE: usize = 4096;
/// Standard output and standard error.
const CONSOLES: [i32; 2] = [1, 2];

/// The hypercalls of one guest. There is no state to save.
pub struct Hypercalls {
    memory: Memory,
    output: Output,
    /// With the zero at the end of each.
    args: Vec<Vec<u8>>,
    stopped: Box<dyn Fn() -> bool + Send>,
}

impl Hypercalls {
    /// Hypercalls of a guest with this memory.
    pub fn new(memory: GuestMemoryMmap, output: Output) -> Self {
        Self {
            memory: Memory::new(memory),
            output,
            args: Vec::new(),
            stopped: Box::new(|| false),
        }
    }

    /// Gives the guest arguments, of which the first is the program's name; no more than [`MAX_ARGS`] of them.
    pub fn with_args(mut self, args: impl IntoIterator<Item = String>) -> Self {
        let bytes = |arg: String| {
            let mut bytes = arg.into_bytes();
            bytes.push(0);
            bytes
        };
        self.args = args.into_iter().take(MAX_ARGS).map(bytes).collect();
        self
    }

    /// Says where the root of the page tables is that the guest was started on.
    pub fn with_page_tables(mut self, root: u64) -> Self {
        self.memory.set_page_tables(root);
        self
    }

    /// Has a call that takes long end when `stopped` says so.
    pub fn give_up_when(mut self, stopped: impl Fn() -> bool + Send + 'static) -> Self {
        self.stopped = Box::new(stopped);
        self
    }

    /// The devices, and their places on the port bus.
    pub fn ports(self) -> Vec<(Range, Arc<Mutex<Port>>)> {
        let this = Arc::new(Mutex::new(self));
        let port = |number| {
            let hypercalls = this.clone();
            (Range::ports(number, 4), shared(Port { number, hypercalls }))
        };
        port::ALL.map(port).into()
    }

    fn call(&mut self, number: u16, data: &[u8]) -> Result<Effect, Misuse> {
        if number == port::UART {
            // A byte, whatever the width.
            return Ok(self.print(data.get(..1).unwrap_or_default()));
        }
        let address = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        let width = data.len();
        let at = |call| match address {
            Ok(at) => Ok(u64::from(at)),
            Err(_) => Err(Misuse::Width { call, width }),
        };
        match number {
            port::FILE_WRITE => return self.file_write(at(spec::Write::NAME)?),
            port::SERIAL_WRITE_BUFFER => {
                return self.serial_write_buffer(at(spec::SerialWriteBuffer::NAME)?);
            }
            port::EXIT => return self.exit(at(spec::Exit::NAME)?),
            port::CMDSIZE => self.cmdsize(at(spec::Cmdsize::NAME)?)?,
            port::CMDVAL => self.cmdval(at(spec::Cmdval::NAME)?)?,
            port::FILE_OPEN => self.answer(at(spec::Open::NAME)?, |params: &mut spec::Open| {
                params.ret = NO_ENTRY.into();
            })?,
            port::FILE_UNLINK => {
                self.answer(at(spec::Unlink::NAME)?, |params: &mut spec::Unlink| {
                    params.ret = NO_ENTRY.into();
                })?;
            }
            port::FILE_CLOSE => {
                self.answer(at(spec::Close::NAME)?, |params: &mut spec::Close| {
                    params.ret = (-1).into();
                })?
            }
            port::FILE_READ => self.answer(at(spec::Read::NAME)?, |params: &mut spec::Read| {
                params.ret = (-1).into();
            })?,
            port::FILE_LSEEK => {
                self.answer(at(spec::Lseek::NAME)?, |params: &mut spec::Lseek| {
                    params.offset = (-1).into();
                })?
            }
            _ => {}
        }
        Ok(Effect::None)
    }

    /// Reads the structure and writes it back with an answer.
    fn answer<T: Params + zerocopy::Immutable>(
        &self,
        at: u64,
        answer: impl FnOnce(&mut T),
    ) -> Result<(), Misuse> {
        let mut params: T = self.memory.params(at)?;
        answer(&mut params);
        self.memory.write(T::NAME, at, params.as_bytes())
    }

    fn print(&self, bytes: &[u8]) -> Effect {
        match self.output.write(bytes) {
            Ok(()) => Effect::None,
            Err(error) => Effect::HostFailed(error),
        }
    }

    fn serial_write_buffer(&self, at: u64) -> Result<Effect, Misuse> {
        const CALL: &str = spec::SerialWriteBuffer::NAME;
        let params: spec::SerialWriteBuffer = self.memory.params(at)?;
        let (buf, len) = (params.buf.get(), params.len.get());
        self.memory.check(CALL, buf, len)?;
        self.copy(CALL, len, |done| Ok((buf.saturating_add(done), u64::MAX)))
    }

    /// There is no answer. What is not for the console is for no file that there is.
    fn file_write(&self, at: u64) -> Result<Effect, Misuse> {
        const CALL: &str = spec::Write::NAME;
        let params: spec::Write = self.memory.params(at)?;
        if !CONSOLES.contains(&params.fd.get()) {
            return Ok(Effect::None);
        }
        let (buf, len) = (params.buf.get(), params.len.get());
        self.copy(CALL, len, |done| {
            self.memory.translate(CALL, buf.wrapping_add(done))
        })
    }

    /// Prints `len` bytes. `place` says where those behind the first so many are, and how many lie there together.
    fn copy(
        &self,
        call: &'static str,
        len: u64,
        place: impl Fn(u64) -> Result<(u64, u64), Misuse>,
    ) -> Result<Effect, Misuse> {
        let mut buffer = [0; PIECE];
        let mut done = 0;
        while done < len && !(self.stopped)() {
            let (at, together) = place(done)?;
            let piece = usize::try_from(together.min(len - done)).unwrap_or(PIECE);
            let bytes = buffer.get_mut(..piece.min(PIECE)).unwrap_or_default();
            self.memory.read(call, at, bytes)?;
            match self.print(bytes) {
                Effect::None => {}
                effect => return Ok(effect),
            }
            done = done.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        Ok(Effect::None)
    }

    /// The status is the low byte of the guest's, as a process's is that of what it returns.
    fn exit(&self, at: u64) -> Result<Effect, Misuse> {
        let params: spec::Exit = self.memory.params(at)?;
        let [status, ..] = params.arg.get().to_le_bytes();
        Ok(Effect::Exit(status.into()))
    }

    fn cmdsize(&self, at: u64) -> Result<(), Misuse> {
        self.answer(at, |params: &mut spec::Cmdsize| {
            let count = |len| i32::try_from(len).unwrap_or(i32::MAX);
            params.argc = count(self.args.len()).into();
            for (size, arg) in params.argsz.iter_mut().zip(&self.args) {
                *size = count(arg.len()).into();
            }
            params.envc = 0.into();
        })
    }

    fn cmdval(&self, at: u64) -> Result<(), Misuse> {
        const CALL: &str = spec::Cmdval::NAME;
        let params: spec::Cmdval = self.memory.params(at)?;
        let argv = (0..).map(|index: u64| params.argv.get().saturating_add(index * 8));
        for (arg, at) in self.args.iter().zip(argv) {
            let mut to = [0; 8];
            self.memory.read(CALL, at, &mut to)?;
            self.memory.write(CALL, u64::from_le_bytes(to), arg)?;
        }
        Ok(())
    }
}

/// One port.
pub struct Port {
    number: u16,
    hypercalls: Arc<Mutex<Hypercalls>>,
}

impl Device for Port {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        // The ports behind that of a call are nobody's.
        if offset != 0 {
            return Effect::None;
        }
        let mut hypercalls = self
            .hypercalls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match hypercalls.call(self.number, data) {
            Ok(effect) => effect,
            Err(misuse) => Effect::Violation(misuse.to_string()),
        }
    }
}
