//! What is said where io_uring is not to be had, as in containers whose seccomp filter refuses it.
#![allow(
    unsafe_code,
    reason = "a seccomp filter for the test's thread, which nothing offers safely"
)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::io;

use goldcrest_memory::io::Ring;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Lets `io_uring_setup` fail in this thread.
fn refuse_io_uring(errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = [
        // Offset 0 of `seccomp_data` is the system call's number.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter points to as many statements as it says, which the kernel copies; it affects this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter),
            0
        );
    }
}

#[test]
fn a_host_that_refuses_io_uring_is_told_apart_and_said_why() {
    for (errno, kind, text) in [
        (
            libc::EPERM,
            io::ErrorKind::PermissionDenied,
            "io_uring is forbidden",
        ),
        (
            libc::ENOSYS,
            io::ErrorKind::Unsupported,
            "the kernel has no io_uring",
        ),
    ] {
        let thread = std::thread::spawn(move || {
            refuse_io_uring(errno);
            let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
            Ring::new(memory, 8, &[]).unwrap_err()
        });
        let error = thread.join().unwrap();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().starts_with(text), "{error}");
    }
}
