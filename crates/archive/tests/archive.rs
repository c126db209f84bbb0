//! Archives that were changed, cut off, put together from others, or lie: refused, whatever is done to them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::io::Write;
use std::process::{Command, Stdio};

use goldcrest_archive::{ArchiveError, Key, MAX_CHUNK, Reader, Writer};
use proptest::prelude::*;

const HEADER: usize = 52;
const HEAD: usize = 16;

fn key() -> Key {
    Key::new(&[0x5a; 32])
}

fn pack(bytes: &[u8], key: Option<&Key>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), key).unwrap();
    writer.put(bytes).unwrap();
    writer.finish().unwrap()
}

fn unpack(archive: &[u8], len: usize, key: Option<&Key>) -> Result<Vec<u8>, ArchiveError> {
    let mut reader = Reader::new(archive, key)?;
    let mut bytes = vec![0; len];
    reader.take(&mut bytes)?;
    reader.finish()?;
    Ok(bytes)
}

/// Bytes that can be compressed a little.
fn text(len: usize) -> Vec<u8> {
    let mut word: u32 = 1;
    let mut next = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (word >> 24) as u8 & 0x1f
    };
    (0..len).map(|_| next()).collect()
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
}

/// The header, and the chunks.
fn parts(archive: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (header, mut rest) = archive.split_at(HEADER);
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(HEAD + number(rest));
        chunks.push(chunk.to_vec());
        rest = behind;
    }
    (header.to_vec(), chunks)
}

/// An archive of one chunk that is not encrypted, with a right checksum: its frame has `len` bytes, it says.
fn forged(frame: &[u8], len: u32) -> Vec<u8> {
    let mut archive = pack(&[], None)[..HEADER].to_vec();
    let mut head = Vec::new();
    for field in [frame.len() as u32, len, 1] {
        head.extend(field.to_le_bytes());
    }
    let covered = [&archive[16..32], &[0; 8], &head, frame].concat();
    archive.extend(head);
    archive.extend(crc32fast::hash(&covered).to_le_bytes());
    archive.extend(frame);
    archive
}

#[test]
fn every_length_and_every_flipped_bit_is_refused() {
    let bytes = text(300);
    for key in [None, Some(&key())] {
        let archive = pack(&bytes, key);
        assert_eq!(unpack(&archive, 300, key).unwrap(), bytes);
        for len in 0..archive.len() {
            assert!(unpack(&archive[..len], 300, key).is_err(), "{len}");
        }
        for bit in 0..archive.len() * 8 {
            let mut archive = archive.clone();
            archive[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&archive, 300, key).is_err(), "bit {bit}");
        }
        let more = [&archive[..], &[0]].concat();
        assert!(matches!(
            unpack(&more, 300, key),
            Err(ArchiveError::Trailing)
        ));
        assert!(matches!(
            unpack(&archive, 301, key),
            Err(ArchiveError::TooShort)
        ));
        assert!(matches!(
            unpack(&archive, 299, key),
            Err(ArchiveError::Trailing)
        ));
    }
}

#[test]
fn chunks_cannot_be_exchanged_dropped_repeated_or_come_from_elsewhere() {
    let bytes = text(3 * MAX_CHUNK + 5);
    for key in [None, Some(&key())] {
        let (archive, other) = (pack(&bytes, key), pack(&bytes, key));
        assert!(unpack(&archive, bytes.len(), key).unwrap() == bytes);
        let (header, chunks) = parts(&archive);
        let (_, others) = parts(&other);
        assert_eq!(chunks.len(), 4);
        let with = |order: &[&Vec<u8>]| {
            let mut archive = header.clone();
            order.iter().for_each(|chunk| archive.extend(*chunk));
            archive
        };
        let [a, b, c, d] = &chunks[..] else {
            unreachable!()
        };
        assert!(unpack(&with(&[a, b, c, d]), bytes.len(), key).is_ok());
        for (order, len) in [
            (&[b, a, c, d][..], bytes.len()),
            (&[a, c, d], 2 * MAX_CHUNK + 5),
            (&[a, b, b, c, d], bytes.len() + MAX_CHUNK),
            (&[a, b, c], 3 * MAX_CHUNK),
            (&[d], 5),
            (&[a, b, c, &others[3]], bytes.len()),
            (&[a, &others[1], c, d], bytes.len()),
        ] {
            let refused = unpack(&with(order), len, key).map(drop).unwrap_err();
            let is_told = matches!(
                refused,
                ArchiveError::Chunk { .. } | ArchiveError::Truncated(_)
            );
            assert!(is_told, "{refused}");
        }
        // A last chunk in the middle would make the archive shorter.
        let mut early = c.clone();
        early[8] = 1;
        assert!(unpack(&with(&[a, b, &early]), 3 * MAX_CHUNK, key).is_err());
    }
}

#[test]
fn keys_are_told_apart_and_needed() {
    let (right, wrong) = (key(), Key::new(&[0x5b; 32]));
    let archive = pack(b"secret words", Some(&right));
    assert!(!archive.windows(6).any(|window| window == b"secret"));
    let refusal = |archive: &[u8], key| unpack(archive, 12, key).unwrap_err();
    assert!(matches!(
        refusal(&archive, Some(&wrong)),
        ArchiveError::WrongKey
    ));
    assert!(matches!(refusal(&archive, None), ArchiveError::KeyNeeded));
    // One that somebody put in its place who did not have the key.
    let plain = pack(b"secret words", None);
    assert!(matches!(
        refusal(&plain, Some(&right)),
        ArchiveError::NotEncrypted
    ));
}

#[test]
fn frames_that_lie_are_refused_before_they_take_memory() {
    let frame = |archive: &[u8]| archive[HEADER + HEAD..].to_vec();
    let small = frame(&pack(&[7; 100], None));
    assert_eq!(unpack(&forged(&small, 100), 100, None).unwrap(), [7; 100]);
    for len in [0, 99, 101, MAX_CHUNK as u32] {
        let refused = unpack(&forged(&small, len), len as usize, None);
        assert!(matches!(refused, Err(ArchiveError::Chunk { .. })), "{len}");
    }
    for len in [MAX_CHUNK as u32 + 1, u32::MAX] {
        let refused = unpack(&forged(&small, len), 1, None)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("must be at most 1048576"), "{refused}");
    }
    // A frame of ten gigabytes of zeros: blocks that repeat one byte (RFC 8878, section 3.1.1.2).
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for _ in 0..80_000 {
        let header = (128_u32 << 10) << 3 | 1 << 1;
        bomb.extend(&header.to_le_bytes()[..3]);
        bomb.push(0);
    }
    let refused = unpack(&forged(&bomb, 1 << 20), 1 << 20, None).unwrap_err();
    assert!(matches!(refused, ArchiveError::Chunk { .. }), "{refused}");
    // A window of a terabyte.
    let mut window = small.clone();
    window[5] = 30 << 3;
    assert!(unpack(&forged(&window, 100), 100, None).is_err());
    // And stored bytes that nobody has.
    let mut archive = forged(&small, 100);
    archive[HEADER..HEADER + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(unpack(&archive, 100, None).is_err());
}

/// Chunks are compressed at once, and are what they would be if each was alone.
#[test]
fn many_chunks_are_in_order() {
    let bytes = text(5 * MAX_CHUNK + 77);
    let mut writer = Writer::new(Vec::new(), None).unwrap();
    for piece in bytes.chunks(300_007) {
        writer.put(piece).unwrap();
    }
    let archive = writer.finish().unwrap();
    let (_, chunks) = parts(&archive);
    assert_eq!(chunks.len(), 6);
    for (chunk, bytes) in chunks.iter().zip(bytes.chunks(MAX_CHUNK)) {
        assert!(chunk[HEAD..] == parts(&pack(bytes, None)).1[0][HEAD..]);
    }
    assert!(unpack(&archive, bytes.len(), None).unwrap() == bytes);
}

/// Where the tool `zstd` is, it unpacks what is in the chunks.
#[test]
fn frames_are_standard_ones() {
    let bytes = text(MAX_CHUNK + 77);
    let (_, chunks) = parts(&pack(&bytes, None));
    let frames: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk[HEAD..].to_vec())
        .collect();
    assert!(frames.len() < bytes.len() * 7 / 10, "{}", frames.len());
    let zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut zstd) = zstd else {
        println!("skipped: there is no zstd here");
        return;
    };
    let mut stdin = zstd.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(&frames).unwrap());
    assert!(zstd.wait_with_output().unwrap().stdout == bytes);
    feed.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(bytes: Vec<u8>, repeat in 1..2000_usize, encrypted: bool) {
        let key = encrypted.then(key);
        let bytes = bytes.repeat(repeat);
        let archive = pack(&bytes, key.as_ref());
        prop_assert!(unpack(&archive, bytes.len(), key.as_ref()).unwrap() == bytes);
    }

    #[test]
    fn any_bytes_as_a_frame_are_refused_without_panic(mut frame: Vec<u8>, len in 0_u32..4096) {
        prop_assume!(len > 0);
        let _ = unpack(&forged(&frame, len), len as usize, None);
        frame.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]);
        let _ = unpack(&forged(&frame, len), len as usize, None);
    }
}
