//! A driver makes requests of a disk in memory, in every form that the specification allows (§5.2.6).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use goldcrest_bus::Device;
use goldcrest_virtio::driver::{self, Buffer};
use goldcrest_virtio::spec::{feature::VERSION_1, mmio};
use goldcrest_virtio_blk::spec::{config, feature, request, status};
use goldcrest_virtio_blk::{Block, BlockConfig, MemoryDisk, Topology};
use guest::{DATA, Guest, ScriptedDisk, numbered};

fn guest(sectors: usize) -> Guest<MemoryDisk> {
    Guest::new(MemoryDisk::new(numbered(sectors)))
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend([sectors, flags].map(u32::to_le_bytes).as_flattened());
    bytes
}

#[test]
fn what_is_written_is_read() {
    let mut guest = guest(16);
    let read = [
        Buffer::Writable(DATA, 512),
        Buffer::Writable(DATA + 9000, 1024),
    ];
    assert_eq!(guest.run(request::IN, 3, &read), (status::OK, 1537));
    assert_eq!(guest.read(DATA, 512), [4; 512]);
    assert_eq!(guest.read(DATA + 9000, 512), [5; 512]);
    assert_eq!(guest.read(DATA + 9512, 512), [6; 512]);

    guest.write(DATA, &[0x77; 1024]);
    let write = [
        Buffer::Readable(DATA + 24, 1000),
        Buffer::Readable(DATA, 24),
    ];
    assert_eq!(guest.run(request::OUT, 14, &write), (status::OK, 1));
    assert_eq!(guest.run(request::FLUSH, 0, &[]), (status::OK, 1));
    let bytes = guest.disk().bytes();
    assert!(bytes[..14 * 512] == numbered(14));
    assert_eq!(bytes[14 * 512..], [0x77; 1024]);
    // Nothing at all is not an error.
    assert_eq!(guest.run(request::IN, 16, &[]), (status::OK, 1));
    assert_eq!(guest.run(request::OUT, 0, &[]), (status::OK, 1));
}

#[test]
fn a_request_may_be_divided_into_descriptors_in_any_way() {
    let mut guest = guest(4);
    let at = guest.header(request::IN, 1);
    let status_at = DATA + 512;
    let pieces = [
        // Header in three, data and status together.
        vec![
            Buffer::Readable(at, 3),
            Buffer::Readable(at + 3, 0),
            Buffer::Readable(at + 3, 6),
            Buffer::Readable(at + 9, 7),
            Buffer::Writable(DATA, 513),
        ],
        // Status alone, with nothing behind it.
        vec![
            Buffer::Readable(at, 16),
            Buffer::Writable(DATA, 500),
            Buffer::Writable(DATA + 500, 12),
            Buffer::Writable(status_at, 1),
            Buffer::Writable(0xffff_ffff_ffff, 0),
        ],
    ];
    for buffers in &pieces {
        guest.write(DATA, &[0; 512]);
        guest.offer(0, buffers, status_at);
        guest.notify(0);
        let answer = guest.answers(0)[0];
        assert_eq!((answer.status, answer.written), (status::OK, 513));
        assert_eq!(guest.read(DATA, 512), [2; 512]);
    }
    // Header and data together, in a table of descriptors.
    let header = guest.header(request::OUT, 2);
    let bytes = guest.read(header, 16);
    guest.write(DATA, &bytes);
    guest.write(DATA + 16, &[0x55; 512]);
    let buffers = [Buffer::Readable(DATA, 528), Buffer::Writable(DATA + 528, 1)];
    let head = guest.queues[0].describe_indirect(DATA + 0x1000, &buffers);
    guest.queues[0].offer(head);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 1)));
    assert_eq!(guest.read(DATA + 528, 1), [status::OK]);
    assert_eq!(guest.disk().bytes()[1024..1536], [0x55; 512]);
}

#[test]
fn sectors_are_discarded_and_turned_into_zeros() {
    let mut guest = guest(16);
    for (kind, sector, flags) in [
        (request::DISCARD, 2, 0),
        (request::WRITE_ZEROES, 4, 0),
        (request::WRITE_ZEROES, 6, 1),
    ] {
        guest.write(DATA, &range(sector, 1, flags));
        let data = [Buffer::Readable(DATA, 9), Buffer::Readable(DATA + 9, 7)];
        assert_eq!(guest.run(kind, 0, &data), (status::OK, 1));
    }
    for (sector, bytes) in guest.disk().bytes().chunks(512).enumerate() {
        let zero = [2, 4, 6].contains(&sector);
        let expected = if zero { 0 } else { sector as u8 + 1 };
        assert_eq!(bytes, [expected; 512]);
    }
    let one = [Buffer::Readable(DATA, 16)];
    for (kind, range, expected) in [
        (request::DISCARD, range(0, 1, 1), status::UNSUPP),
        (request::WRITE_ZEROES, range(0, 1, 2), status::UNSUPP),
        (request::DISCARD, range(16, 1, 0), status::IOERR),
        (request::WRITE_ZEROES, range(u64::MAX, 1, 0), status::IOERR),
    ] {
        guest.write(DATA, &range);
        assert_eq!(guest.run(kind, 0, &one), (expected, 1));
    }
    let two = [Buffer::Readable(DATA, 32)];
    assert_eq!(guest.run(request::DISCARD, 0, &two), (status::IOERR, 1));
}

#[test]
fn the_name_is_told_padded_with_zeros() {
    for (id, room, expected) in [
        ("", 20, status::OK),
        ("root", 20, status::OK),
        ("12345678901234567890", 64, status::OK),
        ("root", 19, status::IOERR),
    ] {
        let set = BlockConfig {
            id: id.into(),
            ..BlockConfig::default()
        };
        let mut guest = Guest::configured(MemoryDisk::new(numbered(1)), &set);
        guest.write(DATA, &[0xee; 64]);
        let answer = guest.run(request::GET_ID, 0, &[Buffer::Writable(DATA, room)]);
        let mut bytes = [0xee; 64];
        let mut written = 1;
        if expected == status::OK {
            bytes[..20].fill(0);
            bytes[..id.len()].copy_from_slice(id.as_bytes());
            written = 21;
        }
        assert_eq!(answer, (expected, written));
        assert_eq!(guest.read(DATA, 64), bytes);
    }
}

#[test]
fn a_read_only_disk_says_so_and_refuses_what_would_write() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)).read_only());
    let offered = driver::offered_features(&mut guest.device);
    assert_eq!(offered & feature::RO, feature::RO);
    assert_eq!(offered & (feature::DISCARD | feature::WRITE_ZEROES), 0);
    let (write, read) = ([Buffer::Readable(DATA, 512)], [Buffer::Writable(DATA, 512)]);
    assert_eq!(guest.run(request::OUT, 0, &write), (status::IOERR, 1));
    let one = [Buffer::Readable(DATA, 16)];
    assert_eq!(guest.run(request::DISCARD, 0, &one), (status::UNSUPP, 1));
    let zeroes = guest.run(request::WRITE_ZEROES, 0, &one);
    assert_eq!(zeroes, (status::UNSUPP, 1));
    assert_eq!(guest.run(request::IN, 7, &read), (status::OK, 513));
    assert_eq!(guest.run(request::FLUSH, 0, &[]), (status::OK, 1));
    assert!(guest.disk().bytes() == numbered(8));
}

#[test]
fn the_configuration_is_what_was_set() {
    let set = BlockConfig {
        queues: 3,
        queue_size: 64,
        topology: Topology {
            physical_block_exp: 5,
            alignment_offset: 1,
            min_io_size: 32,
            opt_io_size: 128,
        },
        ..BlockConfig::default()
    };
    let mut guest = Guest::configured(MemoryDisk::new(numbered(9)), &set);
    let offered = driver::offered_features(&mut guest.device);
    let expected = feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::FLUSH
        | feature::TOPOLOGY
        | feature::CONFIG_WCE
        | feature::MQ
        | feature::DISCARD
        | feature::WRITE_ZEROES;
    assert_eq!(offered & 0xff_ffff, expected);
    assert_eq!(guest.queues.len(), 3);
    assert_eq!(guest.config(config::CAPACITY), 9_u64.to_le_bytes());
    assert_eq!(guest.config(config::SEG_MAX), 62_u32.to_le_bytes());
    assert_eq!(guest.config(config::BLK_SIZE), 512_u32.to_le_bytes());
    assert_eq!(
        guest.config(config::PHYSICAL_BLOCK_EXP),
        [5, 1, 32, 0, 128, 0, 0, 0]
    );
    assert_eq!(guest.config(config::WRITEBACK), [1, 0, 3, 0]);
    assert_eq!(guest.config(config::MAX_DISCARD_SEG), [1, 0, 0, 0]);
    assert_eq!(guest.config(config::WRITE_ZEROES_MAY_UNMAP), [1, 0, 0, 0]);
    let mut one = Guest::new(MemoryDisk::new(numbered(9)));
    assert_eq!(driver::offered_features(&mut one.device) & feature::MQ, 0);
}

/// What a write is asked to be: durable at once, or by a flush.
fn durability(guest: &mut Guest<ScriptedDisk>) -> String {
    assert_eq!(
        guest.run(request::OUT, 0, &[Buffer::Readable(DATA, 512)]),
        (status::OK, 1)
    );
    guest.write(DATA, &range(0, 1, 0));
    let one = [Buffer::Readable(DATA, 16)];
    assert_eq!(guest.run(request::WRITE_ZEROES, 0, &one), (status::OK, 1));
    let calls = std::mem::take(&mut guest.disk().script().calls);
    calls.join(", ")
}

fn set_writeback(guest: &mut Guest<ScriptedDisk>, value: u8) {
    let at = mmio::CONFIG + config::WRITEBACK as u64;
    let _ = guest.device.write(at, &[value]);
}

#[test]
fn writes_are_durable_at_once_unless_the_driver_flushes() {
    let block = || Block::new(ScriptedDisk::default(), &BlockConfig::default()).unwrap();
    let begin = |without| {
        let guest = Guest::with(block(), without);
        guest.disk().script().calls.clear();
        guest
    };
    let (back, through) = ("write, zero", "write through, zero through");
    for (without, expected, writeback) in [
        (0, back, 1),
        (feature::CONFIG_WCE, back, 1),
        (feature::FLUSH, through, 0),
        (feature::FLUSH | feature::CONFIG_WCE, through, 0),
    ] {
        let mut guest = begin(without);
        assert_eq!(durability(&mut guest), expected, "{without:#x}");
        assert_eq!(guest.config(config::WRITEBACK), [writeback]);
    }
    let mut guest = begin(0);
    set_writeback(&mut guest, 0);
    assert_eq!(guest.config(config::WRITEBACK), [0]);
    assert_eq!(durability(&mut guest), through);
    set_writeback(&mut guest, 1);
    assert_eq!(durability(&mut guest), back);
    // What is not `writeback` cannot be written.
    let _ = guest.device.write(mmio::CONFIG, &[0xff; 8]);
    assert_eq!(guest.config(config::CAPACITY), 2048_u64.to_le_bytes());
    // A reset sets it back.
    set_writeback(&mut guest, 0);
    guest.initialise(0);
    guest.disk().script().calls.clear();
    assert_eq!(durability(&mut guest), back);
    // It cannot be written by a driver that has not agreed on that.
    let mut guest = begin(feature::CONFIG_WCE);
    set_writeback(&mut guest, 0);
    assert_eq!(durability(&mut guest), back);
    // It may be written before the queues work, but not without that agreement.
    for (agreed, writeback) in [(feature::CONFIG_WCE, 0), (0, 1)] {
        let mut guest = begin(0);
        let features = VERSION_1 | feature::FLUSH | agreed;
        assert!(driver::negotiate(&mut guest.device, features));
        set_writeback(&mut guest, 0);
        let layout = guest.queues[0].layout;
        driver::set_up(&mut guest.device, 0, &layout);
        driver::start(&mut guest.device);
        assert_eq!(guest.config(config::WRITEBACK), [writeback]);
    }
}

#[test]
fn queues_work_side_by_side() {
    let set = BlockConfig {
        queues: 4,
        ..BlockConfig::default()
    };
    let mut guest = Guest::configured(MemoryDisk::new(numbered(16)).deferred(), &set);
    for queue in 0..4 {
        for n in 0..3 {
            let sector = u64::from(queue) * 4 + n;
            let at = DATA + sector * 512;
            guest.submit(queue, request::IN, sector, &[Buffer::Writable(at, 512)]);
        }
    }
    for queue in [3, 1, 0, 2] {
        guest.notify(queue);
        assert_eq!(guest.answers(queue).len(), 3);
    }
    for sector in (0..16).filter(|n| n % 4 != 3) {
        assert_eq!(
            guest.read(DATA + sector * 512, 512),
            [sector as u8 + 1; 512]
        );
    }
}
