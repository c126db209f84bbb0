//! The bytes of a stream.

/// Bytes that follow from a stream's number and direction.
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub fn new(number: u32, from_listener: bool) -> Self {
        let seed = u64::from(number) << 1 | u64::from(from_listener);
        Self {
            state: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            word: [0; 8],
            used: 8,
        }
    }

    /// The next bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.word.len() {
                // Xorshift, which is enough that no two streams look alike.
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.word = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}
