//! The requests to `/dev/net/tun` and to interfaces.
#![allow(
    unsafe_code,
    reason = "no crate has a safe interface for these requests of the kernel's"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

/// An interface's name, with zeros behind it.
pub(super) type Name = [u8; libc::IFNAMSIZ];

/// `struct ifreq`, of which the flags are used.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: Name,
    flags: u16,
    /// It has room for other things.
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

impl Request {
    const fn new(name: Name, flags: u16) -> Self {
        Self {
            name,
            flags,
            rest: [0; 22],
        }
    }
}

/// Makes the descriptor a queue of the interface of this name, which is created if there is none. Returns its name.
pub(super) fn set_interface(tun: impl AsFd, name: Name, flags: u16) -> io::Result<Name> {
    let mut request = Request::new(name, flags);
    with_request(tun, libc::TUNSETIFF, &mut request)?;
    Ok(request.name)
}

/// The name and the flags of the interface that the descriptor is a queue of.
pub(super) fn interface(tun: impl AsFd) -> io::Result<(Name, u16)> {
    let mut request = Request::new([0; libc::IFNAMSIZ], 0);
    with_request(tun, libc::TUNGETIFF, &mut request)?;
    Ok((request.name, request.flags))
}

/// Has frames go by this queue of an interface with several, or not.
pub(super) fn set_queue(tun: impl AsFd, attached: bool) -> io::Result<()> {
    let flags = match attached {
        true => libc::IFF_ATTACH_QUEUE,
        false => libc::IFF_DETACH_QUEUE,
    };
    let flags = u16::try_from(flags).unwrap_or(0);
    let mut request = Request::new([0; libc::IFNAMSIZ], flags);
    with_request(tun, libc::TUNSETQUEUE, &mut request)
}

/// The flags of the interface of this name, by any socket.
pub(super) fn interface_flags(socket: impl AsFd, name: Name) -> io::Result<u16> {
    let mut request = Request::new(name, 0);
    with_request(socket, libc::SIOCGIFFLAGS, &mut request)?;
    Ok(request.flags)
}

/// The MTU of the interface of this name, by any socket; the largest if it has a larger one.
pub(super) fn interface_mtu(socket: impl AsFd, name: Name) -> io::Result<u16> {
    let mut request = Request::new(name, 0);
    with_request(socket, libc::SIOCGIFMTU, &mut request)?;
    // An `int` where the flags are otherwise.
    let [first, second, ..] = request.rest;
    let mtu = u32::from(request.flags) | u32::from(u16::from_ne_bytes([first, second])) << 16;
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Sets how many bytes precede each frame.
pub(super) fn set_header_size(tun: impl AsFd, bytes: c_int) -> io::Result<()> {
    let fd = tun.as_fd().as_raw_fd();
    // SAFETY: TUNSETVNETHDRSZ reads an int, to which it is given the address of one that lives through the call. On a
    // descriptor of anything else the kernel looks at no argument, or at an int, which nothing but `tun` has here.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const bytes) };
    check(result)
}

/// Sets what frames may leave to their receiver: `TUN_F_…`.
pub(super) fn set_offload(tun: impl AsFd, offloads: u32) -> io::Result<()> {
    let fd = tun.as_fd().as_raw_fd();
    // SAFETY: TUNSETOFFLOAD takes a number, not an address: no memory is touched.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
    check(result)
}

fn with_request(fd: impl AsFd, number: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the callers above give numbers of requests that read and write a `struct ifreq` at the address, whose size
    // `Request` has, and which is borrowed for writing through the call. Its bytes may become anything: they are
    // numbers.
    let result = unsafe { libc::ioctl(fd, number, std::ptr::from_mut(request)) };
    check(result)
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
