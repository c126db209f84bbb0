//! The device.

use std::fmt;
use std::time::Duration;

use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, QueueError, Ram, VirtioDevice,
    Waits, spec::device_id,
};

use crate::control::{Control, Size};
use crate::port::{Flow, PIECE, Port, PortControl};
use crate::spec::{CONTROL_SIZE, MAX_NAME, MAX_PORTS, config, event, feature, queue};
use crate::{ConsoleError, PortConfig};

/// A console device.
pub struct Console {
    pub(crate) ports: Vec<Port>,
    pub(crate) size: Size,
    /// The driver is to be told of the size.
    resized: bool,
    multiport: bool,
    /// The driver has said that it is ready to be told of ports.
    pub(crate) ready: bool,
    ignored: u64,
    /// Between guest and backends.
    piece: Box<[u8; PIECE]>,
}

/// What a queue is for (§5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Input(usize),
    Output(usize),
    ControlReceive,
    ControlTransmit,
}

impl Role {
    fn of(index: u16) -> Self {
        match index {
            queue::RECEIVE => Self::Input(0),
            queue::TRANSMIT => Self::Output(0),
            queue::CONTROL_RECEIVE => Self::ControlReceive,
            queue::CONTROL_TRANSMIT => Self::ControlTransmit,
            _ if index.is_multiple_of(2) => Self::Input(usize::from(index / 2 - 1)),
            _ => Self::Output(usize::from(index / 2 - 1)),
        }
    }
}

/// The queue for input of a port; the one for output follows it.
fn input_queue(port: usize) -> u16 {
    match u16::try_from(port) {
        Ok(0) => queue::RECEIVE,
        Ok(port) => port.saturating_mul(2).saturating_add(2),
        Err(_) => u16::MAX,
    }
}

fn misused(queue: u16) -> impl Fn(QueueError) -> DeviceError {
    move |source| DeviceError::Queue { queue, source }
}

impl Console {
    /// A console with these ports. With more than one it offers `VIRTIO_CONSOLE_F_MULTIPORT`; a driver that does not
    /// take that uses the first alone.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Ports`] or [`ConsoleError::Name`].
    pub fn new(ports: Vec<PortConfig>) -> Result<Self, ConsoleError> {
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return Err(ConsoleError::Ports(ports.len()));
        }
        let mut names = ports.iter().filter_map(|port| port.name.as_ref());
        if let Some(name) = names.find(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(ConsoleError::Name(name.clone()));
        }
        let mut console = Self {
            ports: ports.into_iter().map(Port::new).collect(),
            size: Size::default(),
            resized: false,
            multiport: false,
            ready: false,
            ignored: 0,
            piece: Box::new([0; PIECE]),
        };
        console.look_at_size();
        Ok(console)
    }

    /// The terminal at port 0 has this size, in characters; 0 by 0 if that is not known, as at first.
    ///
    /// The driver is told the next time that events are processed, which the device waits for.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let size = Size { cols, rows };
        self.resized |= size != self.size;
        self.size = size;
    }

    /// How many bytes of output of a port were dropped, because nobody was at its end or the host could not write.
    pub fn lost(&self, port: usize) -> u64 {
        self.ports.get(port).map_or(0, |port| port.lost)
    }

    /// How many control messages were ignored: short ones, and ones that name what does not exist.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Only the first port is in use without `VIRTIO_CONSOLE_F_MULTIPORT`.
    fn active(&self) -> usize {
        if self.multiport { self.ports.len() } else { 1 }
    }

    fn input(&mut self, port: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let index = input_queue(port);
        let multiport = self.multiport;
        match (self.ports.get_mut(port), io.queue(index)) {
            // What a driver has not opened it would throw away.
            (Some(port), _) if multiport && !port.control.open => {
                port.flow.stop_input();
                Ok(())
            }
            (Some(port), Some(queue)) => port.input(queue, index, &mut self.piece),
            _ => Ok(()),
        }
    }

    fn output(&mut self, port: usize, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let index = input_queue(port).saturating_add(1);
        match (self.ports.get_mut(port), io.queue(index)) {
            (Some(port), Some(queue)) => {
                port.output(queue, &mut self.piece).map_err(misused(index))
            }
            _ => Ok(()),
        }
    }

    fn receive_control(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let misused = misused(queue::CONTROL_TRANSMIT);
        let Some(mut queue) = io.queue(queue::CONTROL_TRANSMIT) else {
            return Ok(());
        };
        while let Some(mut chain) = queue.pop().map_err(&misused)? {
            let (head, mut bytes) = (chain.head, [0; CONTROL_SIZE]);
            let whole = chain.readable.left() >= bytes.len() as u64;
            if whole {
                chain.readable.read(&mut bytes).map_err(&misused)?;
            }
            queue.push(head, 0);
            if !whole || !self.control(Control::from_bytes(bytes)) {
                self.ignored = self.ignored.saturating_add(1);
            }
        }
        // Some ports may have been opened.
        (0..self.active()).try_for_each(|port| self.input(port, io))
    }

    /// Does what a message says. Returns whether it could be understood.
    fn control(&mut self, message: Control) -> bool {
        if message.event == event::DEVICE_READY {
            self.announce(message.value != 0);
            return true;
        }
        let (ready, id) = (self.ready, usize::try_from(message.id).ok());
        let Some(port) = id.and_then(|id| self.ports.get_mut(id)) else {
            return false;
        };
        let (control, yes) = (&mut port.control, message.value != 0);
        match message.event {
            event::PORT_READY if ready => {
                let owed = control.owed;
                *control = PortControl::default();
                control.ready = yes;
                control.owed = owed;
                if yes && port.config.console {
                    control.owed.add(event::CONSOLE_PORT);
                    // Only port 0 has a size, and it may not be known.
                    if message.id == 0 && self.size != Size::default() {
                        control.owed.add(event::RESIZE);
                    }
                }
                if yes && port.config.name.is_some() {
                    control.owed.add(event::PORT_NAME);
                }
            }
            event::PORT_OPEN if control.ready => {
                control.open = yes;
                port.flow.stop_input();
            }
            _ => return false,
        }
        true
    }

    /// The driver is ready to be told of ports, or is not (§5.3.6.2).
    fn announce(&mut self, ready: bool) {
        self.ready = ready;
        for port in &mut self.ports {
            port.control = PortControl::default();
            if ready {
                port.control.owed.add(event::PORT_ADD);
            }
        }
    }

    /// Sends the messages that are owed, as far as the driver has room for them.
    fn send_control(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if !self.multiport {
            return Ok(());
        }
        let misused = misused(queue::CONTROL_RECEIVE);
        let Some(mut queue) = io.queue(queue::CONTROL_RECEIVE) else {
            return Ok(());
        };
        for (id, port) in (0..).zip(&mut self.ports) {
            while let Some((control, body)) = next_message(id, port, &self.size.to_bytes()) {
                let Some(mut chain) = queue.pop().map_err(&misused)? else {
                    return Ok(());
                };
                let head = chain.head;
                chain
                    .writable
                    .write(&control.to_bytes())
                    .map_err(&misused)?;
                chain.writable.write(body).map_err(&misused)?;
                let len = CONTROL_SIZE.saturating_add(body.len());
                queue.push(head, u32::try_from(len).unwrap_or(0));
                if control.event == event::PORT_OPEN {
                    port.control.told_open = control.value != 0;
                } else {
                    port.control.owed.remove(control.event);
                }
            }
        }
        Ok(())
    }

    /// Takes over the size of the terminal at port 0, if it is at one that says.
    fn look_at_size(&mut self) {
        let port = self.ports.first();
        if let Some((cols, rows)) = port.and_then(|port| port.config.backend.size()) {
            self.resize(cols, rows);
        }
    }

    fn tell_size(&mut self, io: &mut DeviceIo<'_>) {
        if !std::mem::take(&mut self.resized) {
            return;
        }
        io.config_changed();
        if let Some(port) = self.ports.first_mut()
            && port.control.ready
            && port.config.console
        {
            port.control.owed.add(event::RESIZE);
        }
    }
}

/// The next message that is owed to a port's driver, and what follows it.
fn next_message<'a>(id: u32, port: &'a Port, size: &'a [u8]) -> Option<(Control, &'a [u8])> {
    let (event, value) = match port.control.owed.first() {
        Some(event @ event::CONSOLE_PORT) => (event, 1),
        Some(event) => (event, 0),
        None if port.owes_open() => (event::PORT_OPEN, u16::from(!port.control.told_open)),
        None => return None,
    };
    let body = match event {
        event::PORT_NAME => port.config.name.as_deref().unwrap_or_default().as_bytes(),
        event::RESIZE => size,
        _ => &[],
    };
    Some((Control { id, event, value }, body))
}

impl VirtioDevice for Console {
    fn spec(&self) -> DeviceSpec {
        let mut features = feature::SIZE | feature::EMERG_WRITE;
        let mut queues = 2;
        if self.ports.len() > 1 {
            features |= feature::MULTIPORT;
            queues = self.ports.len().saturating_add(1).saturating_mul(2);
        }
        DeviceSpec {
            id: device_id::CONSOLE,
            features,
            queue_sizes: vec![queue::SIZE; queues],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let ports = u32::try_from(self.ports.len()).unwrap_or(u32::MAX);
        let bytes = self.size.to_bytes().into_iter().chain(ports.to_le_bytes());
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(bytes.skip(skip)) {
            *to = from;
        }
    }

    /// `emerg_wr` (§5.3.4): a character, in the lowest byte.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (config::EMERG_WR, Some(byte), Some(port)) =
            (offset, data.first(), self.ports.first_mut())
        {
            port.config.backend.poll();
            port.emergency(*byte);
        }
    }

    fn activate(&mut self, features: Features, _ram: Ram<'_>) -> Result<(), ActivateError> {
        self.multiport = features.has(feature::MULTIPORT);
        Ok(())
    }

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match Role::of(index) {
            Role::Input(port) if port < self.active() => self.input(port, io)?,
            Role::Output(port) if port < self.active() => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.config.backend.poll();
                }
                self.output(port, io)?;
            }
            Role::ControlTransmit if self.multiport => self.receive_control(io)?,
            _ => {}
        }
        self.send_control(io)
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        for index in 0..self.active() {
            let Some(port) = self.ports.get_mut(index) else {
                break;
            };
            port.config.backend.poll();
            let (output, input) = (port.has_output(), port.wants_input());
            if output {
                self.output(index, io)?;
            }
            if input {
                self.input(index, io)?;
            }
        }
        self.look_at_size();
        self.tell_size(io);
        self.send_control(io)
    }

    fn waits(&self, waits: &mut Waits) {
        if self.resized {
            waits.within(Duration::ZERO);
        }
        for port in self.ports.iter().take(self.active()) {
            port.waits(waits);
        }
    }

    /// What is to be told of the size is not saved, so it is told before.
    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.tell_size(io);
        self.send_control(io)
    }

    fn reset_queue(&mut self, index: u16) {
        match Role::of(index) {
            Role::Input(port) => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.flow.stop_input();
                }
            }
            Role::Output(port) => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.flow.stop_output();
                }
            }
            Role::ControlReceive | Role::ControlTransmit => {}
        }
    }

    fn reset(&mut self) {
        self.multiport = false;
        self.ready = false;
        for port in &mut self.ports {
            port.flow = Flow::default();
            port.control = PortControl::default();
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("ports", &self.ports.len())
            .field("size", &self.size)
            .field("multiport", &self.multiport)
            .finish_non_exhaustive()
    }
}
