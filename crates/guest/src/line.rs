//! The buffer that turns many small writes into one per line.

/// Bytes that are held back at most.
const CAPACITY: usize = 1024;

/// Text that was printed and not yet sent.
pub(crate) struct LineBuffer {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl LineBuffer {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; CAPACITY],
            len: 0,
        }
    }

    /// Appends `text`; whenever the buffer is full, all that is in it goes to `send`.
    pub(crate) fn push(&mut self, mut text: &[u8], send: &mut impl FnMut(&[u8])) {
        while !text.is_empty() {
            let free = self.bytes.get_mut(self.len..).unwrap_or_default();
            let (now, later) = text.split_at(text.len().min(free.len()));
            for (to, from) in free.iter_mut().zip(now) {
                *to = *from;
            }
            self.len += now.len();
            text = later;
            if self.len == CAPACITY {
                self.flush(send);
            }
        }
    }

    /// Sends everything up to and including the last newline.
    pub(crate) fn flush_lines(&mut self, send: &mut impl FnMut(&[u8])) {
        let pending = self.bytes.get(..self.len).unwrap_or_default();
        let Some(newline) = pending.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let (lines, rest) = pending.split_at(newline + 1);
        send(lines);
        let (start, len) = (lines.len(), rest.len());
        self.bytes.copy_within(start..start + len, 0);
        self.len = len;
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, send: &mut impl FnMut(&[u8])) {
        if self.len != 0 {
            send(self.bytes.get(..self.len).unwrap_or_default());
            self.len = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_line_is_one_write_however_many_pieces_it_has() {
        let mut sent = Vec::new();
        let mut send = |bytes: &[u8]| sent.push(bytes.to_vec());
        let mut buffer = LineBuffer::new();
        for piece in ["one", " and ", "two\nth"] {
            buffer.push(piece.as_bytes(), &mut send);
            buffer.flush_lines(&mut send);
        }
        buffer.push(b"ree\n", &mut send);
        buffer.flush_lines(&mut send);
        assert_eq!(sent, [b"one and two\n".to_vec(), b"three\n".to_vec()]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_or_held_beyond_a_flush(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..8)
        ) {
            let (mut sent, mut all) = (Vec::new(), Vec::new());
            let mut send = |bytes: &[u8]| sent.extend_from_slice(bytes);
            let mut buffer = LineBuffer::new();
            for (piece, flush_lines) in &pieces {
                all.extend_from_slice(piece);
                buffer.push(piece, &mut send);
                if *flush_lines {
                    buffer.flush_lines(&mut send);
                }
                prop_assert!(buffer.len < CAPACITY);
            }
            buffer.flush(&mut send);
            prop_assert_eq!(sent, all);
        }
    }
}
