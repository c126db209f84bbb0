//! `NET_WRITE` and `NET_READ`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::device::Attached;
use crate::spec::{self, MAX_FRAME, NET_HLEN, result};
use crate::{Host, Hypercalls, Misuse};

/// What a network card is connected to. Nothing here waits.
pub trait Link: Send {
    /// Takes a frame from the guest: an Ethernet header and up to the MTU.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room for it now: then it is lost, as frames can be. What else keeps it from being
    /// sent, the guest is told.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// Does what is due, and gives a frame for the guest, cut off where `buffer` ends. Returns its length, at most that
    /// of `buffer`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none now, and what else went wrong.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Becomes readable when there may be a frame or something is due.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// When something is due in any case.
    fn timeout(&self) -> Option<Duration> {
        None
    }
}

/// A network card. It takes a frame ahead of the guest, to say whether there is one.
pub struct Net {
    pub(crate) link: Box<dyn Link>,
    /// The most bytes of a frame of the guest's.
    most: usize,
    frame: Box<[u8]>,
    /// What has been taken: the length of the frame, or that there will be none any more.
    ahead: Option<io::Result<usize>>,
}

impl Net {
    /// A network card on `link`. `mtu` is the largest packet in bytes, without the Ethernet header.
    pub fn new(link: impl Link + 'static, mtu: u16) -> Self {
        Self {
            link: Box::new(link),
            most: usize::from(mtu) + NET_HLEN,
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            ahead: None,
        }
    }

    /// Whether there is something for the guest, which may be that the link has failed.
    pub(crate) fn is_ready(&mut self) -> bool {
        if self.ahead.is_none() {
            match self.link.receive(&mut self.frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => self.ahead = Some(result),
            }
        }
        self.ahead.is_some()
    }

    /// The frame, once.
    fn take(&mut self) -> io::Result<&[u8]> {
        if !self.is_ready() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.ahead.take().unwrap_or(Ok(0))?;
        Ok(self.frame.get(..len).unwrap_or_default())
    }
}

impl<H: Host> Hypercalls<H> {
    pub(crate) fn net_write(&mut self, at: u64) -> Result<(), Misuse> {
        let call: spec::Net = self.memory.argument(at)?;
        let ret = self.send(&call)?;
        self.answer_net(at, ret)
    }

    fn send(&mut self, call: &spec::Net) -> Result<i32, Misuse> {
        let Some(Attached::Net(net)) = self.attached.device(call.handle.get()) else {
            return Ok(result::EINVAL);
        };
        let (data, len) = (call.data.get(), call.len.get());
        self.memory.check("net_write", data, len)?;
        let lengths = NET_HLEN..=net.most;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| lengths.contains(len));
        let Some(frame) = len.and_then(|len| self.buffer.get_mut(..len)) else {
            return Ok(result::EINVAL);
        };
        self.memory.read("net_write", data, frame)?;
        Ok(match net.link.send(frame) {
            Ok(()) => result::OK,
            // "It will be silently dropped" (solo5.h).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => result::OK,
            Err(_) => result::EUNSPEC,
        })
    }

    pub(crate) fn net_read(&mut self, at: u64) -> Result<(), Misuse> {
        let call: spec::Net = self.memory.argument(at)?;
        // Before a frame is taken that there would be no place for.
        let ret_at = at.saturating_add(NET_RET);
        self.memory.check_writable("net_read", ret_at, 4)?;
        let received = self.receive(&call)?;
        if let Ok(len) = received {
            let len = u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes();
            self.memory
                .write("net_read", at.saturating_add(NET_LEN), &len)?;
        }
        self.answer_net(at, received.err().unwrap_or(result::OK))
    }

    fn receive(&mut self, call: &spec::Net) -> Result<Result<usize, i32>, Misuse> {
        let Some(Attached::Net(net)) = self.attached.device(call.handle.get()) else {
            return Ok(Err(result::EINVAL));
        };
        let (data, len) = (call.data.get(), call.len.get());
        self.memory.check_writable("net_read", data, len)?;
        let frame = match net.take() {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Err(result::AGAIN));
            }
            Err(_) => return Ok(Err(result::EUNSPEC)),
        };
        // Where there is less room, a frame is cut, as Solo5's own tender does.
        let most = usize::try_from(len).unwrap_or(MAX_FRAME);
        let frame = frame.get(..most).unwrap_or(frame);
        self.memory.write("net_read", data, frame)?;
        Ok(Ok(frame.len()))
    }

    fn answer_net(&self, at: u64, ret: i32) -> Result<(), Misuse> {
        let at = at.saturating_add(NET_RET);
        self.memory.write("net", at, &ret.to_le_bytes())
    }
}

const NET_LEN: u64 = std::mem::offset_of!(spec::Net, len) as u64;
const NET_RET: u64 = std::mem::offset_of!(spec::Net, ret) as u64;
