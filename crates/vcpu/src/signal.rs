//! What a signal does to this process.
#![allow(
    unsafe_code,
    reason = "the disposition of a signal has no safe interface"
)]

/// Whether a signal is ignored, as `nohup` and shells arrange for their children. A monitor leaves it so.
pub fn signal_is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the disposition, into a structure of ours; a wrong number is an error.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_programs_ignore_sigpipe_and_nothing_else() {
        assert!(signal_is_ignored(libc::SIGPIPE));
        assert!(!signal_is_ignored(libc::SIGWINCH));
        assert!(!signal_is_ignored(12345));
    }
}
