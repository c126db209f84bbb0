//! The metadata service: a guest that sends any frames and any requests, and a host that changes the document.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use goldcrest_mmds::{Endpoint, HEAD, Mmds, MmdsConfig, MmdsVersion};
use goldcrest_usernet::{RxOffload, TxOffload};
use serde_json::{Value, json};

use crate::usernet::{checksum, finish_ipv4, segment};

const SERVICE: [u8; 4] = [169, 254, 169, 254];
/// What only those read who may. It has a space, so that no response has it from a request's path.
const SECRET: &str = "what only those read who may";
const ISS: u32 = 0xffff_f000;
/// More frames than this cannot be owed without anything new.
const MOST_FRAMES: usize = 100_000;
/// More connections than this there never are, with those that are about to end.
const MOST_CONNECTIONS: usize = 256;
/// Of what requests are made.
const WORDS: [&str; 16] = [
    "GET ",
    "PUT ",
    "/",
    "/secret",
    "/latest/api/token",
    "http://x/list/1",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "\r\n",
    "GET /secret HTTP/1.1\r\n\r\n",
    "X-metadata-token: 00\r\n",
    "X-metadata-token-ttl-seconds: 9\r\n",
    "Accept: application/json\r\n",
    "Connection: close\r\n",
    "Content-Length: 5\r\n",
    "X-Forwarded-For: a\r\n",
];

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

struct World {
    endpoint: Endpoint,
    mmds: Arc<Mmds>,
    now: Duration,
    /// By the guest's port: the next number of the service's, and of the guest's.
    flows: HashMap<u16, (u32, u32)>,
    /// Nobody has had a token: nothing is told.
    is_secret: bool,
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let is_secret = input.arbitrary()?;
    let version = match is_secret {
        true => MmdsVersion::V2,
        false => MmdsVersion::V1,
    };
    let config = MmdsConfig {
        version,
        ..MmdsConfig::default()
    };
    let mmds = Arc::new(Mmds::with_key(config, [9; 64]).expect("the configuration is right"));
    let mut world = World {
        endpoint: Endpoint::with_seed(mmds.clone(), Some([5; 16])).expect("it is made"),
        mmds,
        now: Duration::ZERO,
        flows: HashMap::new(),
        is_secret,
    };
    world.mmds.put(document(0)).expect("it is short");
    while !input.is_empty() {
        match input.int_in_range(0..=9)? {
            0 => world.wait(input)?,
            1 => world.send_any(input)?,
            2..=6 => world.send_segment(input)?,
            7 => world.change(input)?,
            _ => world.receive(input)?,
        }
        assert!(world.endpoint.connections() <= MOST_CONNECTIONS);
    }
    world.drain(65550, RxOffload::default());
    Ok(())
}

/// A document with a string of this length.
fn document(len: usize) -> Value {
    json!({ "secret": SECRET, "list": [SECRET, "x".repeat(len)], "n": len })
}

impl World {
    fn wait(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let millis: u16 = input.arbitrary()?;
        let factor = if millis & 7 == 0 { 1000 } else { 1 };
        self.now += Duration::from_millis(u64::from(millis) * factor);
        self.endpoint.process(self.now);
        Ok(())
    }

    fn send(&mut self, len: usize, frame: &[u8], offload: TxOffload) {
        if self.endpoint.wants(&frame[..frame.len().min(HEAD)]) {
            self.endpoint.send(len, &mut &*frame, offload, self.now);
        }
    }

    /// A frame of any bytes, to the service.
    fn send_any(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let len = input.int_in_range(0..=200)?;
        let mut frame = input.bytes(len.min(input.len()))?.to_vec();
        let bits: u8 = input.arbitrary().unwrap_or(0);
        let (kind, at) = match bits & 1 {
            0 => ([8, 0], 30),
            _ => ([8, 6], 38),
        };
        if let Some(target) = frame.get_mut(at..at + 4) {
            target.copy_from_slice(&SERVICE);
            frame[12..14].copy_from_slice(&kind);
        }
        if bits & 3 == 2 && frame.len() >= 34 {
            frame[14] = 0x45 | frame[14] & 1;
            let [high, low] = u16::try_from(frame.len() - 14).unwrap_or(0).to_be_bytes();
            frame[16..18].copy_from_slice(&[high, low]);
            finish_ipv4(&mut frame);
        }
        // It may be shorter than it is said to be.
        let said = frame.len() + usize::from(bits & 4 != 0);
        let offload = TxOffload {
            checksum: bits & 8 != 0,
        };
        self.send(said, &frame, offload);
        Ok(())
    }

    /// A segment with a piece of a request, most often the one that comes next.
    fn send_segment(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bits: u8 = input.arbitrary()?;
        let port = 40000 + u16::from(bits & 3) + if bits & 0x80 != 0 { bits.into() } else { 0 };
        let known = self.flows.get(&port).copied();
        let flags = match (known, bits >> 2 & 7) {
            (None, _) | (_, 0) => 0x02,
            (_, 1) => 0x11,
            (_, 2) => 0x14,
            (_, 3) => input.arbitrary::<u8>()? & 0x3f,
            _ => 0x18,
        };
        let (ack, seq) = known.unwrap_or((0, ISS));
        let seq = if flags & 2 != 0 { ISS } else { seq };
        let mut text = Vec::new();
        for _ in 0..input.int_in_range(0..=12)? {
            match WORDS.get(usize::from(input.arbitrary::<u8>()? & 31)) {
                Some(word) => text.extend(word.as_bytes()),
                None => text.extend(input.bytes(1)?),
            }
        }
        if bits & 0x60 == 0x60 {
            text = text.repeat(usize::from(input.arbitrary::<u8>()?));
        }
        text.truncate(if flags & 2 != 0 { 0 } else { 9000 });
        let window: u16 = input.arbitrary()?;
        let frame = segment((port, SERVICE, 80), (seq, ack, flags, window), &[], &text);
        self.send(frame.len(), &frame, TxOffload { checksum: true });
        // Most often a guest takes the answer before it goes on.
        if bits & 0x10 == 0 || known.is_none() {
            self.drain(65550, RxOffload::default());
        }
        Ok(())
    }

    fn change(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let len = usize::from(input.arbitrary::<u16>()?);
        match len & 3 {
            0 => drop(self.mmds.patch(&json!({ "secret": null }))),
            1 => drop(self.mmds.set_config(MmdsConfig {
                limit: len,
                ..self.mmds.config()
            })),
            _ => drop(self.mmds.put(document(len))),
        }
        let config = self.mmds.config();
        let document = self.mmds.get().to_string();
        assert!(document.len() <= config.limit.max(2));
        Ok(())
    }

    fn receive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bits: u8 = input.arbitrary()?;
        let offload = RxOffload {
            checksum: bits & 1 != 0,
            tso4: bits & 2 != 0,
            tso6: bits & 4 != 0,
        };
        let room = match bits & 8 {
            0 => usize::from(input.arbitrary::<u16>()?),
            _ => 65550,
        };
        match bits & 16 {
            0 => drop(self.receive_one(room, offload)),
            _ => self.drain(room, offload),
        }
        Ok(())
    }

    fn drain(&mut self, room: usize, offload: RxOffload) {
        let mut count = 0;
        while self.receive_one(room, offload) || room > 65535 && self.endpoint.has_frame() {
            count += 1;
            assert!(count < MOST_FRAMES, "frames without end");
        }
    }

    fn receive_one(&mut self, room: usize, offload: RxOffload) -> bool {
        let mut frame = Vec::new();
        let given = self.endpoint.receive(room, offload, &mut frame, self.now);
        let Some(info) = given else {
            return false;
        };
        assert!(info.len == frame.len() && info.len <= room);
        if self.is_secret {
            let secret = SECRET.as_bytes();
            assert!(!frame.windows(secret.len()).any(|part| part == secret));
        }
        if frame[12..14] == [8, 0] {
            assert_eq!(checksum(&frame[14..34]), 0, "header");
            assert_eq!(frame[26..30], SERVICE, "from the service");
            if frame[23] == 6 {
                self.learn(&frame);
            }
        }
        true
    }

    /// Takes what a segment says.
    fn learn(&mut self, frame: &[u8]) {
        let word = |at: usize| {
            u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
        };
        let port = u16::from_be_bytes([frame[36], frame[37]]);
        let (seq, ack, flags) = (word(38), word(42), frame[47]);
        if flags & 4 != 0 {
            self.flows.remove(&port);
            return;
        }
        let payload = frame.len() - 34 - usize::from(frame[46] >> 4) * 4;
        let len = u32::try_from(payload).expect("short");
        let taken = len + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
        self.flows.insert(port, (seq.wrapping_add(taken), ack));
    }
}
