//! Making a process of this one.
#![allow(unsafe_code, reason = "`fork` has no safe interface")]

use std::io;

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that went on.
    Parent {
        /// The other's number.
        child: i32,
    },
    /// The new one. It has copies of all that the other has, but for its virtual machines: KVM runs those in the process
    /// alone that made them.
    Child,
}

/// Makes a process that is a copy of this one, for what takes long to make to be made once, for many machines.
///
/// # Errors
///
/// If the process has another thread, whose locks the new one would have and nobody to release them: this is for the time
/// before there is one. Else what the host says.
pub fn fork() -> io::Result<Forked> {
    // A process with one thread has nobody who could start another meanwhile.
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    // SAFETY: the only thread calls it, so that the child's memory is as a process's is between two of its calls: no lock
    // is held by anybody else, and no data structure is half changed.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        child if child > 0 => Ok(Forked::Parent { child }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_copied() {
        std::thread::scope(|scope| {
            // Tests have threads besides.
            let other = scope.spawn(fork);
            assert!(other.join().unwrap().is_err());
        });
    }
}
