//! The file `working-set` beside a snapshot's memory: refused, or pages that RAM has, each once.

use goldcrest_memory::working_set::{MAX_EXTENTS, WorkingSet};
use goldcrest_memory::{GuestRam, MemoryConfig, PAGE_SIZE};
use goldcrest_monitor::{ImageId, parse_working_set};
use goldcrest_snapshot::seal_state;
use serde_json::Value;

/// The image that a set is asked for.
pub const IMAGE: ImageId = ImageId([0x5a; 16]);
/// Bytes of RAM of the smallest image that there is.
const SMALLEST: u64 = 1 << 20;
/// Of RAM up to this size, pages are had before they are needed.
const POPULATED: u64 = 4 << 20;

/// Runs the target: a byte says how large RAM is, and with its highest bit that the checksum is to be made right.
pub fn run(data: &[u8]) {
    let Some((choice, file)) = data.split_first() else {
        return;
    };
    let mut file = file.to_vec();
    if let (0x80.., Some((covered, sum))) = (*choice, file.split_last_chunk_mut()) {
        *sum = crc32fast::hash(covered).to_le_bytes();
    }
    let size = SMALLEST << (choice & 0x1f).min(22);
    match parse_working_set(&file, IMAGE, size) {
        Ok(Some(set)) => {
            assert_possible(&set, size);
            let other = parse_working_set(&file, ImageId([0; 16]), size);
            assert!(matches!(other, Ok(None)), "it is another image's, too");
        }
        // Of another image, or too small.
        Ok(None) => {}
        Err(error) => {
            let why = error.to_string();
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }
}

fn assert_possible(set: &WorkingSet, size: u64) {
    let (read, written) = set.bytes();
    assert_eq!(
        [read, written],
        ["read", "written"].map(|of| extents(set, of, size))
    );
    // A larger image has all that a smaller one has; one page less than there must be, and it is none of it.
    assert_eq!(set.check(size.saturating_mul(2)), Ok(()));
    let sealed = seal_state("working-set", 1, &(IMAGE, set)).expect("it can be saved");
    let again = parse_working_set(&sealed, IMAGE, size).expect("it was believed");
    assert_eq!(again.as_ref(), Some(set));
    if size <= POPULATED {
        populate(set, size);
    }
}

/// The extents of one kind as they are saved: ascending, apart, within RAM. How many bytes they have.
fn extents(set: &WorkingSet, of: &str, size: u64) -> u64 {
    let saved = serde_json::to_value(set).expect("it is plain data");
    let extents = saved[of].as_array().expect("extents are a list");
    assert!(extents.len() <= MAX_EXTENTS);
    let number = |extent: &Value, name: &str| extent[name].as_u64().expect("it is a number");
    let (mut end, mut pages) = (0, 0);
    for extent in extents {
        let (first, count) = (number(extent, "first"), number(extent, "pages"));
        assert!(first >= end && count > 0, "{extent} behind {end}");
        end = first + count;
        pages += count;
    }
    assert!(end <= size / PAGE_SIZE);
    // The image that ends before the last page does not have it.
    if end > 0 {
        assert!(set.check((end - 1) * PAGE_SIZE).is_err());
    }
    pages * PAGE_SIZE
}

/// Having pages early changes nothing in them.
fn populate(set: &WorkingSet, size: u64) {
    let config = MemoryConfig {
        size,
        ..MemoryConfig::default()
    };
    let ram = GuestRam::new(&config).expect("there is memory");
    let last = size - 8;
    ram.write(last, b"the last").expect("it is RAM");
    ram.populate(set);
    let mut bytes = [0; 8];
    ram.view().read(last, &mut bytes).expect("it is RAM");
    assert_eq!(&bytes, b"the last");
}
