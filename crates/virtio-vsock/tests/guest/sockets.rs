//! What Linux makes of the device: sockets, with its rules for credit and for closing.

use std::collections::{BTreeMap, VecDeque};

use goldcrest_virtio::driver::notify;
use goldcrest_virtio_vsock::spec::{op, queue, shutdown};
use goldcrest_virtio_vsock::{Backend, Header};

use super::{Guest, Packet, header};

/// Linux's room for a socket, and its largest packet.
const ROOM: u32 = 256 << 10;
const MAX_PACKET: usize = 64 << 10;
/// What a packet costs at least, since 6.12.92.
const COST: usize = 576;

/// A socket, by its port and the host's.
pub(crate) type Name = (u32, u32);

#[derive(Debug, Default)]
pub(crate) struct Socket {
    pub(crate) connected: bool,
    /// The host resets or refuses it, or it is closed from both sides.
    pub(crate) over: bool,
    /// What the host will not do any more.
    pub(crate) host_shut: u32,
    /// What the program has not read: packets, and how far the first has been read.
    queue: VecDeque<Vec<u8>>,
    read: usize,
    forwarded: u32,
    told: u32,
    /// What the program has sent.
    sent: u32,
    host_room: u32,
    host_forwarded: u32,
    shut: u32,
}

impl Socket {
    fn held(&self) -> usize {
        self.queue.iter().map(Vec::len).sum::<usize>() - self.read
    }

    /// How many bytes the host has room for.
    pub(crate) fn room(&self) -> usize {
        let out = self.sent.wrapping_sub(self.host_forwarded);
        self.host_room.saturating_sub(out) as usize
    }

    /// How many bytes there are to read.
    pub(crate) fn readable(&self) -> usize {
        self.held()
    }

    pub(crate) fn ended(&self) -> bool {
        self.held() == 0 && (self.over || self.host_shut & shutdown::SEND != 0)
    }
}

/// The sockets of a guest.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) sockets: BTreeMap<Name, Socket>,
    /// Ports that somebody listens on.
    pub(crate) listening: Vec<u32>,
    pub(crate) packets: usize,
}

impl Sockets {
    fn header(&mut self, op: u16, (guest_port, host_port): Name) -> Header {
        let socket = self.sockets.entry((guest_port, host_port)).or_default();
        socket.told = socket.forwarded;
        Header {
            buf_alloc: ROOM,
            fwd_cnt: socket.forwarded,
            ..header(op, guest_port, host_port)
        }
    }

    /// A socket for a stream that has begun without it.
    pub(crate) fn adopt(&mut self, name: Name) {
        let socket = self.sockets.entry(name).or_default();
        socket.connected = true;
    }

    /// A program connects.
    pub(crate) fn connect<B: Backend>(&mut self, guest: &mut Guest<B>, name: Name) {
        let header = self.header(op::REQUEST, name);
        guest.send(&header, &[]);
    }

    /// A program sends as much as there is room for. Returns how much.
    pub(crate) fn send<B: Backend>(
        &mut self,
        guest: &mut Guest<B>,
        name: Name,
        bytes: &[u8],
    ) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(socket) = self.sockets.get_mut(&name) else {
                break;
            };
            let count = (bytes.len() - done).min(socket.room()).min(MAX_PACKET);
            if count == 0 || !socket.connected || guest.waiting() >= 64 {
                break;
            }
            socket.sent = socket.sent.wrapping_add(count as u32);
            let header = Header {
                len: count as u32,
                ..self.header(op::RW, name)
            };
            guest.put(&header, &bytes[done..done + count]);
            done += count;
        }
        if done > 0 {
            notify(&mut guest.device, queue::TRANSMIT);
        }
        done
    }

    /// A program reads up to `len` bytes.
    pub(crate) fn read<B: Backend>(
        &mut self,
        guest: &mut Guest<B>,
        name: Name,
        len: usize,
    ) -> Vec<u8> {
        let Some(socket) = self.sockets.get_mut(&name) else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        while bytes.len() < len
            && let Some(first) = socket.queue.front()
        {
            let rest = &first[socket.read..];
            let count = rest.len().min(len - bytes.len());
            bytes.extend(&rest[..count]);
            socket.read += count;
            if socket.read == first.len() {
                socket.queue.pop_front();
                socket.read = 0;
            }
        }
        socket.forwarded = socket.forwarded.wrapping_add(bytes.len() as u32);
        // Linux 6.1 tells of room when it thinks that the host might not know of enough for a packet.
        let known = ROOM - socket.forwarded.wrapping_sub(socket.told);
        if (known as usize) < MAX_PACKET && !socket.over {
            let header = self.header(op::CREDIT_UPDATE, name);
            guest.send(&header, &[]);
        }
        bytes
    }

    /// A program will not send, receive, or do either any more.
    pub(crate) fn shut<B: Backend>(&mut self, guest: &mut Guest<B>, name: Name, flags: u32) {
        let Some(socket) = self.sockets.get_mut(&name).filter(|s| !s.over) else {
            return;
        };
        socket.shut |= flags;
        let flags = socket.shut;
        if flags == shutdown::BOTH && socket.host_shut == shutdown::BOTH {
            let header = self.header(op::RST, name);
            self.sockets.remove(&name);
            guest.send(&header, &[]);
            return;
        }
        let header = Header {
            flags,
            ..self.header(op::SHUTDOWN, name)
        };
        guest.send(&header, &[]);
    }

    /// Takes what has come. Returns how many packets.
    pub(crate) fn receive<B: Backend>(&mut self, guest: &mut Guest<B>) -> usize {
        let packets = guest.packets();
        let count = packets.len();
        for packet in packets {
            self.packets += 1;
            self.take(guest, packet);
        }
        count
    }

    fn take<B: Backend>(&mut self, guest: &mut Guest<B>, (packet, payload): Packet) {
        let name = (packet.dst_port, packet.src_port);
        let known = self.sockets.contains_key(&name);
        if packet.op == op::REQUEST && !known && self.listening.contains(&name.0) {
            let response = self.header(op::RESPONSE, name);
            let socket = self.sockets.get_mut(&name).unwrap();
            socket.connected = true;
            (socket.host_room, socket.host_forwarded) = (packet.buf_alloc, packet.fwd_cnt);
            guest.send(&response, &[]);
            return;
        }
        let Some(socket) = self.sockets.get_mut(&name) else {
            if packet.op != op::RST {
                guest.send(&header(op::RST, name.0, name.1), &[]);
            }
            return;
        };
        (socket.host_room, socket.host_forwarded) = (packet.buf_alloc, packet.fwd_cnt);
        match packet.op {
            op::RESPONSE => {
                assert!(!socket.connected, "answered twice");
                socket.connected = true;
            }
            op::RST => socket.over = true,
            op::RW => {
                assert!(socket.connected && !socket.over);
                assert_eq!(socket.host_shut & shutdown::SEND, 0, "it had ended");
                assert!(!payload.is_empty());
                assert!(socket.held() + payload.len() <= ROOM as usize, "overrun");
                let cost = (socket.queue.len() + 1) * COST;
                assert!(cost <= ROOM as usize, "too many packets: {cost}");
                socket.queue.push_back(payload);
            }
            op::SHUTDOWN => {
                socket.host_shut |= packet.flags;
                if socket.host_shut == shutdown::BOTH && socket.queue.is_empty() {
                    socket.over = true;
                    let reset = self.header(op::RST, name);
                    guest.send(&reset, &[]);
                }
            }
            op::CREDIT_REQUEST => {
                let update = self.header(op::CREDIT_UPDATE, name);
                guest.send(&update, &[]);
            }
            op::CREDIT_UPDATE => {}
            other => panic!("op {other} for a socket"),
        }
    }
}
