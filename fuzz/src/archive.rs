//! Any bytes as an archive of a snapshot: as they are, as a chunk's frame, as what is in the chunks, each with right checksums
//! or tags. Refused, or given back as they were put in; never more than a chunk at a time.

use goldcrest_archive::{Key, Reader, Writer};
use goldcrest_monitor::{archive_info, verify_archive};

/// The identity of all archives here, so that the target does the same each time.
const ID: [u8; 16] = [0x1d; 16];

/// Runs the target: the first byte says what the others are.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let key = Key::new(&[0x4b; 32]);
    let key = (choice & 0x80 != 0).then_some(&key);
    match choice & 3 {
        0 => look(data, key),
        1 => frame(data),
        2 => look(&packed(data, key), key),
        _ => round_trip(data, key),
    }
}

/// All that is asked of an archive without writing anything.
fn look(archive: &[u8], key: Option<&Key>) {
    let verified = verify_archive(archive, key);
    if let Ok(info) = archive_info(archive, key) {
        assert!(info.snapshot.is_some() || key.is_none() && info.encrypted);
        if let Ok(verified) = verified {
            assert_eq!(info.snapshot, Some(verified));
        }
    } else {
        assert!(verified.is_err());
    }
}

fn packed(bytes: &[u8], key: Option<&Key>) -> Vec<u8> {
    let mut writer = Writer::with_id(Vec::new(), key, ID).expect("memory takes all");
    writer.put(bytes).expect("memory takes all");
    writer.finish().expect("memory takes all")
}

/// A chunk with a right checksum: two bytes say how many bytes the frame has, the rest is the frame.
fn frame(data: &[u8]) {
    let Some((len, frame)) = data.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len)) << 5;
    let mut archive = packed(&[], None);
    archive.truncate(52);
    let mut head = Vec::new();
    for field in [frame.len(), len, 1] {
        head.extend(u32::try_from(field).unwrap_or(u32::MAX).to_le_bytes());
    }
    let mut sum = crc32fast::Hasher::new();
    for covered in [&ID[..], &[0; 8], &head, frame] {
        sum.update(covered);
    }
    archive.extend(head);
    archive.extend(sum.finalize().to_le_bytes());
    archive.extend(frame);
    let mut reader = Reader::new(&archive[..], None).expect("the header is right");
    let mut bytes = vec![0; len];
    if reader.take(&mut bytes).is_ok() {
        let _ = reader.finish();
        assert!(round_trips(&bytes, None));
    }
}

fn round_trip(data: &[u8], key: Option<&Key>) {
    assert!(round_trips(data, key));
    // Whatever bit is changed: that is found.
    let mut archive = packed(data, key);
    let at = data.iter().fold(0, |at: usize, byte| {
        at.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let at = at % (archive.len() * 8);
    archive[at / 8] ^= 1 << (at % 8);
    let changed = Reader::new(&archive[..], key).and_then(|mut reader| {
        reader.take(&mut vec![0; data.len()])?;
        reader.finish()
    });
    assert!(changed.is_err());
}

fn round_trips(bytes: &[u8], key: Option<&Key>) -> bool {
    let archive = packed(bytes, key);
    let mut unpacked = vec![0; bytes.len()];
    let read = Reader::new(&archive[..], key).and_then(|mut reader| {
        reader.take(&mut unpacked)?;
        reader.finish()
    });
    read.is_ok() && unpacked == bytes
}
