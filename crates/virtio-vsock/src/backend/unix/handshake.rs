//! Programs that have connected and have not said yet with what.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

/// How long a program may take to say it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most programs that may be taking their time: one more, and the slowest is not waited for.
const MAX: usize = 128;
/// The longest line, with room for some white space: "CONNECT 4294967295\r\n" has 20 bytes.
const MAX_LINE: usize = 32;

/// Programs by number.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    slots: Vec<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    stream: UnixStream,
    deadline: Duration,
}

/// What a program has said.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// To be connected with this port.
    Port(UnixStream, u32),
    /// Nothing, or half of it.
    Incomplete(&'a UnixStream),
    /// What makes no sense, or its last word: it is not connected any more.
    Wrong,
}

impl Handshakes {
    /// Adds a program. Returns its number.
    pub(super) fn add(&mut self, stream: UnixStream, now: Duration) -> usize {
        let free = self.slots.iter().position(Option::is_none);
        let slot = match free {
            Some(slot) => slot,
            None if self.slots.len() < MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => self.first().unwrap_or(0),
        };
        if let Some(place) = self.slots.get_mut(slot) {
            let deadline = now.saturating_add(PATIENCE);
            *place = Some(Waiting { stream, deadline });
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<UnixStream> {
        let waiting = self.slots.get_mut(slot)?.take()?;
        Some(waiting.stream)
    }

    /// What the program has said. `finished` if it will not say any more.
    pub(super) fn look(&mut self, slot: usize, finished: bool) -> Line<'_> {
        let port = match self.slots.get(slot) {
            Some(Some(waiting)) => take_line(&waiting.stream),
            _ => return Line::Wrong,
        };
        match port {
            Ok(Some(port)) => match self.remove(slot) {
                Some(stream) => Line::Port(stream, port),
                None => Line::Wrong,
            },
            Ok(None) if !finished => match self.slots.get(slot) {
                Some(Some(waiting)) => Line::Incomplete(&waiting.stream),
                _ => Line::Wrong,
            },
            _ => {
                self.remove(slot);
                Line::Wrong
            }
        }
    }

    /// When the first program has had its time.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let waiting = self.slots.iter().flatten();
        waiting.map(|waiting| waiting.deadline).min()
    }

    fn first(&self) -> Option<usize> {
        let waiting = self.slots.iter().enumerate();
        let deadlines = waiting.filter_map(|(slot, w)| Some((w.as_ref()?.deadline, slot)));
        deadlines.min().map(|(_, slot)| slot)
    }

    /// Drops those who have had their time.
    pub(super) fn expire(&mut self, now: Duration) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|waiting| waiting.deadline <= now) {
                *slot = None;
            }
        }
    }
}

/// The program wants what it cannot have.
struct Refused;

/// Takes the line from the stream, and nothing of what follows it. Nothing if it is not complete.
fn take_line(stream: &UnixStream) -> Result<Option<u32>, Refused> {
    let mut line = [0; MAX_LINE];
    let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = match recv(stream, &mut line, look) {
        Ok((0, _)) => return Err(Refused),
        Ok((count, _)) => count,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
        Err(_) => return Err(Refused),
    };
    let seen = line.get(..count).unwrap_or_default();
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if count < MAX_LINE {
            Ok(None)
        } else {
            Err(Refused)
        };
    };
    let port = parse(seen.get(..end).unwrap_or_default()).ok_or(Refused)?;
    let whole = line.get_mut(..=end).unwrap_or_default();
    match recv(stream, whole, RecvFlags::DONTWAIT) {
        Ok((taken, _)) if taken == end + 1 => Ok(Some(port)),
        _ => Err(Refused),
    }
}

/// `CONNECT` and a port's number, as others' monitors take them: in any case, with any spaces.
fn parse(line: &[u8]) -> Option<u32> {
    let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
    let connect = words.next()?.eq_ignore_ascii_case("connect");
    let port = words.next()?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (connect && digits && words.next().is_none())
        .then(|| port.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn lines_are_what_others_monitors_take() {
        for (line, port) in [
            ("CONNECT 52", Some(52)),
            ("connect 52\r", Some(52)),
            (" Connect  052 ", Some(52)),
            ("CONNECT 4294967295", Some(u32::MAX)),
            ("CONNECT 4294967296", None),
            ("CONNECT +52", None),
            ("CONNECT -1", None),
            ("CONNECT", None),
            ("CONNECT 5 2", None),
            ("DISCONNECT 52", None),
            ("GET / HTTP/1.1", None),
            ("", None),
        ] {
            assert_eq!(parse(line.as_bytes()), port, "{line:?}");
        }
        assert_eq!(parse(b"CONNECT \xff"), None);
    }

    #[test]
    fn what_follows_a_line_is_left() {
        let (mut program, ours) = UnixStream::pair().unwrap();
        let mut handshakes = Handshakes::default();
        let slot = handshakes.add(ours, Duration::ZERO);
        for part in ["CONN", "ECT ", "1", "2"] {
            program.write_all(part.as_bytes()).unwrap();
            assert!(matches!(handshakes.look(slot, false), Line::Incomplete(_)));
        }
        program.write_all(b"\nhello\n").unwrap();
        let Line::Port(mut stream, 12) = handshakes.look(slot, false) else {
            panic!("the line is complete");
        };
        let mut rest = [0; 6];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello\n");
    }

    #[test]
    fn half_a_line_is_not_waited_for_when_its_end_cannot_come() {
        for sent in ["", "CONNECT 12", "rubbish\n", &"C".repeat(MAX_LINE)] {
            let (mut program, ours) = UnixStream::pair().unwrap();
            let mut handshakes = Handshakes::default();
            let slot = handshakes.add(ours, Duration::ZERO);
            program.write_all(sent.as_bytes()).unwrap();
            drop(program);
            assert!(matches!(handshakes.look(slot, true), Line::Wrong));
            assert_eq!(handshakes.deadline(), None);
        }
    }

    #[test]
    fn programs_that_say_nothing_are_few_and_not_waited_for_long() {
        let mut handshakes = Handshakes::default();
        let mut programs = Vec::new();
        for number in 0..MAX + 2 {
            let (program, ours) = UnixStream::pair().unwrap();
            programs.push(program);
            handshakes.add(ours, Duration::from_millis(number as u64));
        }
        assert_eq!(handshakes.slots.len(), MAX);
        // The first two have had to make room.
        let first = PATIENCE + Duration::from_millis(2);
        assert_eq!(handshakes.deadline(), Some(first));
        handshakes.expire(first);
        assert_eq!(handshakes.slots.iter().flatten().count(), MAX - 1);
        assert_eq!(programs[0].read(&mut [0]).unwrap(), 0, "it was closed");
    }
}
