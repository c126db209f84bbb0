//! From a terminal, pipe or file into the serial port, no faster than the guest reads.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use goldcrest_chipset::{Serial, serial::FIFO_SIZE};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Control, Input, StopReason};

/// Most bytes typed ahead of the guest.
const MAX_PENDING: usize = 4096;
/// Ctrl-a.
const ESCAPE: u8 = 0x01;

/// Feeds a serial port.
pub(crate) struct SerialInput {
    source: Source,
    serial: Arc<Mutex<Serial>>,
    /// The guest can take more.
    ready: EventFd,
    /// Read, but not taken by the serial port yet: at most its FIFO's size, or [`MAX_PENDING`] from a terminal.
    pending: Vec<u8>,
    escape: Option<Escape>,
    control: Arc<Control>,
}

struct Source {
    file: Arc<File>,
    /// False for what epoll does not take: regular files, `/dev/null`. They are always ready.
    pollable: bool,
    watched: bool,
    ended: bool,
}

impl SerialInput {
    pub(crate) fn new(
        input: Input,
        serial: Arc<Mutex<Serial>>,
        control: Arc<Control>,
    ) -> io::Result<Self> {
        Ok(Self {
            source: Source {
                file: input.source,
                pollable: true,
                watched: false,
                ended: false,
            },
            serial,
            ready: EventFd::new(EFD_NONBLOCK)?,
            pending: Vec::with_capacity(FIFO_SIZE),
            escape: input.escape.then(Escape::default),
            control,
        })
    }

    /// Written to when the serial port would take input again.
    pub(crate) fn wake(&self) -> io::Result<EventFd> {
        self.ready.try_clone()
    }

    /// Hands over what is pending, and reads more if the source is known to be `ready` and there is room.
    fn feed(&mut self, mut ready: bool) {
        loop {
            let has_more = ready || !self.source.pollable;
            if has_more && !self.source.ended && self.has_room() {
                ready = false;
                self.read();
            } else {
                self.hand_over();
                return;
            }
            if !self.hand_over() {
                return;
            }
        }
    }

    /// Whether more may be read. A terminal always is, or a guest that takes no input could not be ended from it.
    fn has_room(&self) -> bool {
        self.pending.is_empty() || self.escape.is_some()
    }

    /// Gives the serial port what is pending. Returns whether it took all.
    fn hand_over(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = serial.enqueue(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
        self.pending.is_empty()
    }

    fn read(&mut self) {
        let mut buffer = [0; FIFO_SIZE];
        let bytes = match (&*self.source.file).read(&mut buffer) {
            Ok(count) if count > 0 => buffer.get(..count).unwrap_or_default(),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                return;
            }
            // The end, or a terminal that is gone: the guest runs on without input.
            _ => {
                self.source.ended = true;
                return;
            }
        };
        match &mut self.escape {
            None => self.pending.extend(bytes),
            Some(escape) => {
                if escape.filter(bytes, &mut self.pending) {
                    self.control.stop(StopReason::Escape);
                }
                // What nobody takes is lost, as on a wire.
                self.pending.truncate(MAX_PENDING);
            }
        }
    }

    /// Watches the source exactly while more can be taken.
    fn watch(&mut self, ops: &mut EventOps) {
        let wanted = self.source.pollable && !self.source.ended && self.has_room();
        if wanted == self.source.watched {
            return;
        }
        let events = Events::new(&*self.source.file, EventSet::IN);
        if !wanted {
            let _ = ops.remove(events);
            self.source.watched = false;
        } else if ops.add(events).is_ok() {
            self.source.watched = true;
        } else {
            self.source.pollable = false;
            self.feed(true);
        }
    }
}

impl MutEventSubscriber for SerialInput {
    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(&self.ready, EventSet::IN));
        self.watch(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        use std::os::fd::AsRawFd;
        let from_source = events.fd() == self.source.file.as_raw_fd();
        if !from_source {
            let _ = self.ready.read();
        }
        self.feed(from_source);
        self.watch(ops);
    }
}

/// `Ctrl-a x` in a stream of bytes.
#[derive(Default)]
pub(crate) struct Escape {
    begun: bool,
}

impl Escape {
    /// Appends what is for the guest to `out`. Returns whether the sequence was completed; what follows it is dropped.
    pub(crate) fn filter(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in bytes {
            match (self.begun, byte) {
                (true, b'x') => return true,
                (false, ESCAPE) => {
                    self.begun = true;
                    continue;
                }
                (true, ESCAPE) | (false, _) => {}
                (true, _) => out.push(ESCAPE),
            }
            self.begun = false;
            out.push(byte);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goldcrest_bus::Device;
    use goldcrest_chipset::Output;
    use goldcrest_irq::IrqLine;
    use std::io::Write;

    fn filter(chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut escape, mut out) = (Escape::default(), Vec::new());
        let ended = chunks.iter().any(|c| escape.filter(c, &mut out));
        (out, ended)
    }

    #[test]
    fn the_escape_sequence_ends_and_everything_else_passes() {
        assert_eq!(filter(&[b"ax\x01\x01x"]), (b"ax\x01x".to_vec(), false));
        assert_eq!(filter(&[b"a\x01bx"]), (b"a\x01bx".to_vec(), false));
        assert_eq!(filter(&[b"a\x01x!"]), (b"a".to_vec(), true));
        assert_eq!(filter(&[b"\x01", b"x"]), (b"".to_vec(), true));
    }

    fn serial_input(file: File) -> (SerialInput, Arc<Mutex<Serial>>) {
        let serial = Arc::new(Mutex::new(Serial::new(
            IrqLine::detached(),
            Output::discard(),
        )));
        let _ = serial.lock().unwrap().write(1, &[1]);
        let input = Input {
            source: Arc::new(file),
            escape: false,
            on_listen: Arc::new(|| {}),
        };
        let input = SerialInput::new(input, serial.clone(), Arc::default()).unwrap();
        let wake = input.wake().unwrap();
        serial
            .lock()
            .unwrap()
            .on_ready(move || wake.write(1).unwrap());
        (input, serial)
    }

    /// What the guest reads until the FIFO is empty.
    fn guest_reads(serial: &Mutex<Serial>) -> Vec<u8> {
        let mut serial = serial.lock().unwrap();
        let mut read = |register| {
            let mut data = [0];
            serial.read(register, &mut data);
            data[0]
        };
        let mut bytes = Vec::new();
        while read(5) & 1 != 0 {
            bytes.push(read(0));
        }
        bytes
    }

    #[test]
    fn a_long_file_arrives_whole_and_never_more_than_a_fifo_is_held() {
        let sent: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&sent).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let (mut input, serial) = serial_input(file);
        input.source.pollable = false;
        let mut got = Vec::new();
        for _ in 0..100 {
            input.feed(false);
            assert!(input.pending.len() <= FIFO_SIZE);
            got.extend(guest_reads(&serial));
        }
        assert_eq!(got, sent);
        assert!(input.source.ended);
        assert!(input.ready.read().unwrap() > 0);
    }
}
