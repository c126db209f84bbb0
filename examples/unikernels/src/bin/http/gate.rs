//! The network card, without the connections that nobody could accept.
//!
//! smoltcp refuses a connection for which no socket listens. Here it is passed over instead, as a server with a full
//! backlog does: the client asks again, and finds a socket then.

use goldcrest_guest::virtio::Net;
use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta, RxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

/// The network card.
pub struct Gate<'a> {
    card: &'a mut Net,
    port: u16,
    /// Connections that find a socket.
    room: usize,
    refused: bool,
}

impl<'a> Gate<'a> {
    pub fn new(card: &'a mut Net, port: u16, room: usize) -> Self {
        Self {
            card,
            port,
            room,
            refused: false,
        }
    }

    /// Whether somebody found no socket.
    pub fn has_refused(&self) -> bool {
        self.refused
    }
}

impl Device for Gate<'_> {
    type RxToken<'b>
        = Guarded<'b, <Net as Device>::RxToken<'b>>
    where
        Self: 'b;
    type TxToken<'b>
        = <Net as Device>::TxToken<'b>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (frame, answer) = Device::receive(self.card, now)?;
        let (port, room, refused) = (self.port, &mut self.room, &mut self.refused);
        let guarded = Guarded {
            frame,
            port,
            room,
            refused,
        };
        Some((guarded, answer))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        Device::transmit(self.card, now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.card.capabilities()
    }
}

/// A frame that arrived.
pub struct Guarded<'a, T> {
    frame: T,
    port: u16,
    room: &'a mut usize,
    refused: &'a mut bool,
}

impl<T: RxToken> RxToken for Guarded<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let Self {
            frame,
            port,
            room,
            refused,
        } = self;
        frame.consume(|bytes| {
            if opens_connection(bytes, port) {
                match room.checked_sub(1) {
                    Some(left) => *room = left,
                    // smoltcp passes an empty frame over.
                    None => {
                        *refused = true;
                        return f(&[]);
                    }
                }
            }
            f(bytes)
        })
    }

    fn meta(&self) -> PacketMeta {
        self.frame.meta()
    }
}

/// Whether a frame asks for a connection to a port.
fn opens_connection(frame: &[u8], port: u16) -> bool {
    let syn = || {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let is_ip = frame.ethertype() == EthernetProtocol::Ipv4;
        let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
        let is_tcp = is_ip && packet.next_header() == IpProtocol::Tcp;
        let segment = TcpPacket::new_checked(packet.payload()).ok()?;
        (is_tcp && segment.dst_port() == port).then(|| segment.syn() && !segment.ack())
    };
    syn().unwrap_or(false)
}
