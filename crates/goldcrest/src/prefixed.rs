//! Output of one machine among those of others.

use std::io::{self, Write};

/// The most bytes that wait for the end of their line.
const LONGEST: usize = 4096;

/// Writes whole lines, each with the machine's number before it.
pub(crate) struct Prefixed<W: Write> {
    to: W,
    number: u32,
    line: Vec<u8>,
}

impl<W: Write> Prefixed<W> {
    pub(crate) fn new(number: u32, to: W) -> Self {
        Self {
            to,
            number,
            line: Vec::new(),
        }
    }

    /// In one call, so that lines of several processes do not mix.
    fn end_line(&mut self) -> io::Result<()> {
        let mut whole = format!("{}: ", self.number).into_bytes();
        whole.append(&mut self.line);
        whole.push(b'\n');
        self.to.write_all(&whole)?;
        self.to.flush()
    }
}

impl<W: Write> Write for Prefixed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
            }
            if *byte == b'\n' || self.line.len() >= LONGEST {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for Prefixed<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Nobody is left who could be told.
            let _ = self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_machine_s_number_and_the_last_one_needs_no_end() {
        let mut written = Vec::new();
        let mut output = Prefixed::new(7, &mut written);
        output.write_all(b"one\ntw").unwrap();
        output.write_all(b"o\nthree").unwrap();
        drop(output);
        assert_eq!(written, b"7: one\n7: two\n7: three\n");
    }

    #[test]
    fn a_line_without_an_end_does_not_wait_for_ever() {
        let mut written = Vec::new();
        let mut output = Prefixed::new(0, &mut written);
        output.write_all(&[b'x'; 2 * LONGEST]).unwrap();
        drop(output);
        assert_eq!(written.len(), 2 * (LONGEST + 4));
    }
}
