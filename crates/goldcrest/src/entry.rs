//! The first instructions of the tool.
//!
//! Before `main`, Rust's runtime reads `/proc/self/maps` to learn where the stack ends, and sets up a handler and a
//! stack of its own to report its overflow: a twentieth of a unikernel's start. The tool is called by the C library
//! instead, and does itself what it needs of that; `std::env::args` works all the same with glibc.

/// What the C library calls.
#[allow(unsafe_code, reason = "the symbol is the C library's to call")]
// SAFETY: no other function of the program has this name, and this is the signature that C gives it.
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    open_standard_streams();
    crate::tool().into()
}

/// Makes sure that descriptors 0 to 2 are open, so that `/dev/kvm` or a disk does not become standard output.
fn open_standard_streams() {
    use std::fs::OpenOptions;
    use std::io::{stderr, stdin, stdout};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};

    use nix::fcntl::{FcntlArg, fcntl};

    let is_open = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_GETFD).is_ok();
    if is_open(stdin().as_fd()) && is_open(stdout().as_fd()) && is_open(stderr().as_fd()) {
        return;
    }
    // Opening takes the lowest descriptor that is free.
    loop {
        match OpenOptions::new().read(true).write(true).open("/dev/null") {
            Ok(null) if null.as_raw_fd() <= stderr().as_raw_fd() => drop(null.into_raw_fd()),
            Ok(_) => return,
            // Nothing is safe to be opened then.
            Err(_) => std::process::abort(),
        }
    }
}
