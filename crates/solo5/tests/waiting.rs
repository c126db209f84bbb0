//! Waiting on this system.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_solo5::{Host, SystemHost, Wake};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(40);

fn event() -> (EventFd, OwnedFd) {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let other = event.as_fd().try_clone_to_owned().unwrap();
    (event, other)
}

#[test]
fn a_wait_takes_its_time() {
    let mut host = SystemHost::new(|| false, Some(event().1));
    let begun = Instant::now();
    let time = Duration::from_millis(20);
    while begun.elapsed() < time {
        // A signal may end it early.
        assert_eq!(host.wait(&[], time).unwrap(), Wake::Look);
    }
    assert!(begun.elapsed() < LONG);
}

#[test]
fn what_can_be_read_ends_a_wait() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut host = SystemHost::new(|| false, Some(event().1));
    there.write_all(b"x").unwrap();
    let begun = Instant::now();
    assert_eq!(host.wait(&[here.as_fd()], LONG).unwrap(), Wake::Look);
    assert!(begun.elapsed() < LONG);
}

#[test]
fn an_interruption_ends_one_wait_and_not_the_next() {
    let (event, other) = event();
    let mut host = SystemHost::new(|| true, Some(other));
    assert!(host.is_stopped());
    let begun = Instant::now();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        event.write(1).unwrap();
        event
    });
    assert_eq!(host.wait(&[], LONG).unwrap(), Wake::Return);
    assert!(begun.elapsed() < LONG);
    thread.join().unwrap().as_fd();
    assert_eq!(
        host.wait(&[], Duration::from_millis(1)).unwrap(),
        Wake::Look
    );
}
