//! Where random bytes come from.

use std::io;

/// Gives random bytes.
pub trait Source: Send {
    /// Fills all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) or [`Interrupted`](io::ErrorKind::Interrupted) if there are none now:
    /// the device asks again later. Any other makes the device need a reset.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        (**self).fill(bytes)
    }
}

/// The host's kernel, by `getrandom(2)`, which waits only while the host has not collected any entropy since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSource;

impl Source for HostSource {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::from)
    }
}

/// The same bytes for the same seed, however they are asked for. For tests and fuzzers: nothing about it is secret.
#[derive(Debug, Clone)]
pub struct SeededSource {
    state: u64,
    /// What is left of the last number, its next byte lowest.
    number: u64,
    left: u8,
}

impl SeededSource {
    /// Begins with `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: seed,
            number: 0,
            left: 0,
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    const fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl Source for SeededSource {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        for byte in bytes {
            if self.left == 0 {
                self.number = self.next_number();
                self.left = 8;
            }
            let [lowest, ..] = self.number.to_le_bytes();
            *byte = lowest;
            self.number >>= 8;
            self.left -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers_in_any_pieces() {
        // SplitMix64 with seed 0 begins so in the reference implementation.
        let expected = 0xe220_a839_7b1d_cdaf_u64.to_le_bytes();
        let mut source = SeededSource::new(0);
        let (mut first, mut rest) = ([0; 3], [0; 5]);
        source.fill(&mut first).unwrap();
        source.fill(&mut rest).unwrap();
        assert_eq!([&first[..], &rest[..]].concat(), expected);
    }

    #[test]
    fn the_host_gives_different_bytes_each_time() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        HostSource.fill(&mut a).unwrap();
        HostSource.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
