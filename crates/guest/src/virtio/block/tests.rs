#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::fake::{Fake, Manner, Request};
use super::super::spec::feature as common;
use super::*;

const SECTORS: usize = 64;

type Content = Rc<RefCell<Vec<u8>>>;

/// Serves requests as §5.2.6 has it.
fn serve(disk: &Content, mut request: Request<'_>) -> u32 {
    let header = request.readable[0];
    let (kind, sector) = (
        header[0],
        u64::from_le_bytes(header[8..16].try_into().unwrap()),
    );
    let (status, data) = request.writable.split_last_mut().unwrap();
    let mut disk = disk.borrow_mut();
    let at = sector as usize * 512;
    let mut written = 1;
    status[0] = 0;
    match kind {
        0 => {
            let len = data[0].len();
            data[0].copy_from_slice(&disk[at..at + len]);
            written += len as u32;
        }
        1 => disk[at..at + request.readable[1].len()].copy_from_slice(request.readable[1]),
        4 => {}
        8 => data[0][..4].copy_from_slice(b"fake"),
        11 | 13 => {
            let range = request.readable[1];
            let at = u64::from_le_bytes(range[..8].try_into().unwrap()) as usize * 512;
            let len = u32::from_le_bytes(range[8..12].try_into().unwrap()) as usize * 512;
            assert!(len <= 8 * 512, "no more than the device takes");
            disk[at..at + len].fill(0);
        }
        _ => status[0] = 2,
    }
    written
}

fn fake() -> (Fake, Content) {
    let content = Content::new(RefCell::new(vec![0xee; SECTORS * 512]));
    let disk = content.clone();
    let mut fake = Fake::new(id::BLOCK, move |request| serve(&disk, request));
    fake.offered |= feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;
    fake.config = vec![0; 64];
    fake.config[..8].copy_from_slice(&(SECTORS as u64).to_le_bytes());
    fake.config[8..12].copy_from_slice(&4096_u32.to_le_bytes());
    fake.config[20..24].copy_from_slice(&4096_u32.to_le_bytes());
    fake.config[36..40].copy_from_slice(&8_u32.to_le_bytes());
    fake.config[48..52].copy_from_slice(&8_u32.to_le_bytes());
    (fake, content)
}

fn block() -> (Block<Fake>, Content) {
    let (fake, content) = fake();
    (Block::with_registers(fake).unwrap(), content)
}

#[test]
fn what_is_written_is_on_the_disk_and_is_read_back() {
    for event_idx in [false, true] {
        for manner in [Manner::AtOnce, Manner::Later] {
            let (mut fake, content) = fake();
            fake.manner = manner;
            if !event_idx {
                fake.offered &= !common::EVENT_IDX;
            }
            let mut disk = Block::with_registers(fake).unwrap();
            let data: Vec<u8> = (0..3 * 512_u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
            // More requests than the queue has descriptors, from a buffer that is not aligned.
            for round in 0..100 {
                let mut back = vec![0; data.len() + 1];
                disk.write(round % 60, &data).unwrap();
                disk.flush().unwrap();
                disk.read(round % 60, &mut back[1..]).unwrap();
                assert_eq!(back[1..], data);
                let at = round as usize % 60 * 512;
                assert_eq!(content.borrow()[at..at + data.len()], data);
            }
            let device = disk.transport.registers();
            assert_eq!(device.notifications, 300);
            let waits = if manner == Manner::Later { 300 } else { 0 };
            assert_eq!(device.waits, waits);
        }
    }
}

#[test]
fn a_transfer_is_split_as_the_device_wants_it() {
    let (mut fake, _) = fake();
    fake.offered |= feature::SIZE_MAX | feature::BLK_SIZE;
    let mut disk = Block::with_registers(fake).unwrap();
    assert_eq!((disk.block_size(), disk.capacity()), (4096, 64));
    let mut all = vec![0; SECTORS * 512];
    disk.read(0, &mut all).unwrap();
    assert_eq!(all, vec![0xee; SECTORS * 512]);
    assert_eq!(disk.transport.registers().notifications, 8);
    let unaligned = |len| Err(Error::Unaligned { len, block: 4096 });
    assert_eq!(disk.read(0, &mut all[..512]), unaligned(512));
    assert_eq!(disk.read(1, &mut all[..4096]), unaligned(4096));
}

#[test]
fn zeroes_and_discards_reach_all_sectors_and_no_others() {
    let (mut disk, content) = block();
    disk.write_zeroes(3, 20, true).unwrap();
    disk.discard(40, 9).unwrap();
    for (at, sector) in content.borrow().chunks(512).enumerate() {
        let zero = (3..23).contains(&at) || (40..49).contains(&at);
        assert_eq!(sector, [if zero { 0 } else { 0xee }; 512], "{at}");
    }
    assert_eq!(disk.id().unwrap()[..5], *b"fake\0");
}

#[test]
fn what_the_disk_does_not_allow_never_reaches_it() {
    let (mut disk, _) = block();
    let out_of_range = |sector, count| {
        Err(Error::OutOfRange {
            sector,
            count,
            capacity: 64,
        })
    };
    assert_eq!(disk.read(64, &mut [0; 512]), out_of_range(64, 1));
    assert_eq!(disk.write(63, &[0; 1024]), out_of_range(63, 2));
    assert_eq!(disk.discard(60, 5), out_of_range(60, 5));
    let last = u64::MAX;
    assert_eq!(disk.write_zeroes(last, 1, false), out_of_range(last, 1));
    let (mut fake, _) = fake();
    fake.offered = fake.offered & !feature::DISCARD | feature::RO;
    let mut disk = Block::with_registers(fake).unwrap();
    assert!(disk.is_read_only());
    assert_eq!(disk.write(0, &[0; 512]), Err(Error::ReadOnly));
    assert_eq!(disk.write_zeroes(0, 1, false), Err(Error::ReadOnly));
    assert_eq!(disk.discard(0, 1), Err(Error::Unsupported));
    assert_eq!(
        disk.submit_write(0, vec![0; 512]).unwrap_err().error,
        Error::ReadOnly
    );
    assert_eq!(disk.transport.registers().notifications, 0);
}

#[test]
fn several_requests_are_in_flight_and_end_in_any_order() {
    let (mut fake, content) = fake();
    fake.manner = Manner::Later;
    let mut disk = Block::with_registers(fake).unwrap();
    assert_eq!(disk.wait().unwrap_err(), Error::Nothing);
    for sector in 0..64 {
        content.borrow_mut()[sector * 512] = sector as u8;
    }
    let mut tickets = Vec::new();
    let rejected = loop {
        match disk.submit_read(tickets.len() as u64, vec![0; 512]) {
            Ok(ticket) => tickets.push(ticket),
            Err(rejected) => break rejected,
        }
    };
    assert_eq!(rejected.error, Error::Full);
    assert_eq!(tickets.len(), 64 / 3);
    assert!(disk.poll().unwrap().is_none());
    // A request that waits lets the others end too, and does not take what is theirs.
    let mut sector = [0; 512];
    disk.read(63, &mut sector).unwrap();
    assert_eq!(sector[0], 63);
    for expected in (0..tickets.len()).rev() {
        let completion = disk.wait().unwrap();
        assert_eq!(completion.ticket, tickets[expected]);
        assert_eq!(completion.buffer[0], expected as u8);
        completion.result.unwrap();
    }
    assert!(disk.poll().unwrap().is_none());
    let written = disk.submit_write(5, vec![7; 1024]).unwrap();
    assert_eq!(disk.wait().unwrap().ticket, written);
    assert_eq!(content.borrow()[5 * 512..7 * 512], [7; 1024]);
}

#[test]
fn a_device_that_misbehaves_is_shut_down_with_an_error() {
    let cases = [
        (Manner::WrongId, Error::UsedId { id: 1 }),
        (
            Manner::Twice,
            Error::UsedIndex {
                claimed: 2,
                given: 1,
            },
        ),
        (
            Manner::TooLong,
            Error::UsedLength {
                len: 514,
                limit: 513,
            },
        ),
        (
            Manner::Runaway,
            Error::UsedIndex {
                claimed: 1000,
                given: 1,
            },
        ),
        (Manner::NeedsReset, Error::NeedsReset),
        (Manner::Forgets, Error::NeedsReset),
    ];
    for (manner, expected) in cases {
        let (mut fake, _) = fake();
        fake.manner = manner;
        let mut disk = Block::with_registers(fake).unwrap();
        assert_eq!(disk.read(0, &mut [0; 512]), Err(expected));
        assert!(!disk.transport.registers().is_running(), "{manner:?}");
        assert_eq!(disk.read(0, &mut [0; 512]), Err(Error::Broken));
        assert_eq!(disk.flush(), Err(Error::Broken));
        assert_eq!(disk.wait().unwrap_err(), Error::Broken);
        assert_eq!(
            disk.submit_read(0, vec![0; 512]).unwrap_err().error,
            Error::Broken
        );
    }
}

#[test]
fn a_request_is_completed_once() {
    let (mut fake, _) = fake();
    fake.manner = Manner::Later;
    let mut disk = Block::with_registers(fake).unwrap();
    disk.submit_read(0, vec![0; 512]).unwrap();
    disk.transport.registers().manner = Manner::Request0;
    disk.submit_read(1, vec![0; 512]).unwrap();
    disk.wait().unwrap().result.unwrap();
    assert_eq!(disk.wait().unwrap_err(), Error::UsedId { id: 0 });
    assert_eq!(disk.poll().unwrap_err(), Error::Broken);
}

#[test]
fn descriptors_are_reused_in_whatever_order_they_came_back() {
    let (mut fake, content) = fake();
    fake.manner = Manner::Later;
    let mut disk = Block::with_registers(fake).unwrap();
    for sector in 0..64 {
        content.borrow_mut()[sector * 512] = sector as u8;
    }
    let mut waiting = Vec::new();
    for round in 0..300 {
        // New requests take the place of some that came back while others are still under way.
        while waiting.len() < 5 + round % 7 {
            let sector = (round * 5 + waiting.len()) as u64 % 64;
            let ticket = disk.submit_read(sector, vec![0; 512]).unwrap();
            waiting.push((ticket, sector));
        }
        // One of two descriptors among those of three.
        if round % 50 == 49 {
            disk.flush().unwrap();
        }
        let done = disk.wait().unwrap();
        done.result.unwrap();
        let at = waiting
            .iter()
            .position(|(ticket, _)| *ticket == done.ticket);
        let (_, sector) = waiting.remove(at.unwrap());
        assert_eq!(u64::from(done.buffer[0]), sector);
    }
}

#[test]
fn a_request_can_fail_without_harm_to_the_next() {
    let mut answers = vec![0, 0x77, 2, 1];
    let mut fake = Fake::new(id::BLOCK, move |mut request| {
        let status = request.writable.last_mut().unwrap();
        match answers.pop().unwrap() {
            // The device writes no status.
            0x77 => return 0,
            answer => status[0] = answer,
        }
        1
    });
    fake.config = 64_u64.to_le_bytes().to_vec();
    let mut disk = Block::with_registers(fake).unwrap();
    let mut read = || disk.read(0, &mut [0; 512]);
    assert_eq!(read(), Err(Error::Io));
    assert_eq!(read(), Err(Error::Unsupported));
    assert_eq!(read(), Err(Error::Answer { found: 0xff }));
    assert_eq!(read(), Ok(()));
}

#[test]
fn a_device_that_cannot_be_driven_is_refused() {
    let refused = |change: &dyn Fn(&mut Fake)| {
        let (mut fake, _) = fake();
        change(&mut fake);
        Block::with_registers(fake).unwrap_err()
    };
    assert_eq!(
        refused(&|fake| fake.id = 4),
        Error::Kind {
            found: 4,
            expected: 2
        }
    );
    assert!(matches!(
        refused(&|fake| fake.offered &= !common::VERSION_1),
        Error::Features { .. }
    ));
    assert_eq!(
        refused(&|fake| fake.most_descriptors = 0),
        Error::Queue { index: 0 }
    );
    assert_eq!(
        refused(&|fake| fake.most_descriptors = 3),
        Error::Queue { index: 0 }
    );
    for size in [0, 513, 1 << 21] {
        let error = refused(&|fake| {
            fake.offered |= feature::BLK_SIZE;
            fake.config[20..24].copy_from_slice(&u32::to_le_bytes(size));
        });
        assert_eq!(error, Error::Answer { found: size });
    }
}

proptest! {
    #[test]
    fn a_disk_keeps_what_any_sequence_of_requests_wrote(
        operations in prop::collection::vec((0..5_u8, 0..60_u64, 1..5_u64, any::<u8>()), 1..60),
        later: bool, most in 1..200_u32,
    ) {
        let (mut fake, content) = fake();
        fake.manner = if later { Manner::Later } else { Manner::AtOnce };
        fake.most_descriptors = most.max(4);
        let mut disk = Block::with_registers(fake).unwrap();
        let mut model = vec![0xee; SECTORS * 512];
        let mut pending = 0;
        for (kind, sector, count, byte) in operations {
            let range = sector as usize * 512..(sector + count) as usize * 512;
            let data = vec![byte; range.len()];
            match kind {
                0 => {
                    disk.write(sector, &data).unwrap();
                    model[range].copy_from_slice(&data);
                }
                1 => {
                    let mut back = data;
                    disk.read(sector, &mut back).unwrap();
                    prop_assert_eq!(&back[..], &model[range]);
                }
                2 => {
                    disk.write_zeroes(sector, count, byte & 1 == 0).unwrap();
                    model[range].fill(0);
                }
                3 => if disk.submit_read(sector, data).is_ok() {
                    pending += 1;
                },
                _ => while pending > 0 {
                    disk.wait().unwrap().result.unwrap();
                    pending -= 1;
                },
            }
        }
        prop_assert_eq!(&*content.borrow(), &model);
    }
}
