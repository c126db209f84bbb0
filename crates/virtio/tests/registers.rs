//! The registers of the MMIO transport (§4.2.2), used as they should be and as they should not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_bus::{Device, Effect};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio::{QueueError, QueueLayout, driver};
use guest::*;

const READ_ONLY: [u64; 12] = [
    mmio::MAGIC,
    mmio::VERSION,
    mmio::DEVICE_ID,
    mmio::VENDOR_ID,
    mmio::DEVICE_FEATURES,
    mmio::QUEUE_SIZE_MAX,
    mmio::INTERRUPT_STATUS,
    mmio::SHM_LEN_LOW,
    mmio::SHM_LEN_LOW + 4,
    mmio::SHM_BASE_HIGH - 4,
    mmio::SHM_BASE_HIGH,
    mmio::CONFIG_GENERATION,
];
const OF_A_QUEUE: [u64; 7] = [
    mmio::QUEUE_SIZE,
    mmio::QUEUE_DESC_LOW,
    mmio::QUEUE_DESC_HIGH,
    mmio::QUEUE_DRIVER_LOW,
    mmio::QUEUE_DRIVER_HIGH,
    mmio::QUEUE_DEVICE_LOW,
    mmio::QUEUE_DEVICE_HIGH,
];

#[test]
fn a_driver_finds_a_device_of_version_2() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(mmio::MAGIC), 0x7472_6976);
    assert_eq!(guest.read(mmio::VERSION), 2);
    assert_eq!(guest.read(mmio::DEVICE_ID), 42);
    assert_eq!(guest.read(mmio::VENDOR_ID), mmio::VENDOR);
}

#[test]
fn features_beyond_64_read_as_zero() {
    let mut guest = Guest::new();
    for select in [2, 3, 0x8000_0000, u32::MAX] {
        guest.write(mmio::DEVICE_FEATURES_SEL, select);
        assert_eq!(guest.read(mmio::DEVICE_FEATURES), 0);
    }
}

#[test]
fn each_queue_has_its_greatest_size_and_others_have_none() {
    let mut guest = Guest::new();
    for (queue, size) in (0..).zip(QUEUES) {
        guest.write(mmio::QUEUE_SEL, queue);
        assert_eq!(guest.read(mmio::QUEUE_SIZE_MAX), u32::from(size));
    }
    for queue in [3, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        guest.write(mmio::QUEUE_SEL, queue);
        assert_eq!(guest.read(mmio::QUEUE_SIZE_MAX), 0);
    }
}

#[test]
fn registers_of_queues_that_do_not_exist_do_nothing() {
    let mut guest = Guest::live(RING_RESET);
    for queue in [3, 0xffff, 0x1_0000, u32::MAX] {
        guest.write(mmio::QUEUE_SEL, queue);
        for register in OF_A_QUEUE {
            guest.ignores(|guest| guest.write(register, 4));
        }
        for value in [0, 1] {
            guest.ignores(|guest| guest.write(mmio::QUEUE_READY, value));
        }
        guest.ignores(|guest| guest.write(mmio::QUEUE_RESET, 1));
        assert_eq!(guest.read(mmio::QUEUE_READY), 0);
        assert_eq!(guest.read(mmio::QUEUE_RESET), 0);
    }
    guest.echo(0);
}

#[test]
fn queue_ready_reads_what_was_written() {
    let mut guest = Guest::negotiated(BASIC);
    let layout = guest.queues[1].layout;
    driver::set_up(&mut guest.device, 1, &layout);
    assert_eq!(guest.read(mmio::QUEUE_READY), 1);
    guest.write(mmio::QUEUE_READY, 0);
    assert_eq!(guest.read(mmio::QUEUE_READY), 0);
    guest.write(mmio::QUEUE_SEL, 0);
    assert_eq!(guest.read(mmio::QUEUE_READY), 0);
}

#[test]
fn addresses_have_two_halves_that_keep_each_other() {
    let mut guest = Guest::negotiated(BASIC);
    for (low, high) in [(1, 2), (3, 4), (5, 6)] {
        guest.write(OF_A_QUEUE[low], 0x1111_0000);
        guest.write(OF_A_QUEUE[high], 0x2222_0000);
        guest.write(OF_A_QUEUE[low], 0x3333_0000);
    }
    let address = 0x2222_0000_3333_0000;
    let expected = QueueLayout {
        size: 8,
        descriptors: address,
        available: address,
        used: address,
    };
    assert_eq!(guest.device.core().queue_layout(0), expected);
}

#[test]
fn registers_of_a_queue_are_kept_until_features_ok() {
    let mut guest = Guest::new();
    guest.set_status(1);
    guest.set_status(3);
    for register in OF_A_QUEUE {
        guest.ignores(|guest| guest.write(register, 4));
    }
    guest.ignores(|guest| guest.write(mmio::QUEUE_READY, 1));
    guest.ignores(|guest| guest.write(mmio::QUEUE_RESET, 1));
}

/// CVE-2026-5747 in another monitor.
#[test]
fn registers_of_a_queue_cannot_be_rewritten_in_a_running_device() {
    let mut guest = Guest::live(BASIC);
    for register in OF_A_QUEUE {
        guest.ignores(|guest| guest.write(register, 4));
    }
    guest.ignores(|guest| guest.write(mmio::QUEUE_READY, 1));
    guest.echo(0);
    // Nor behind a queue that was taken out of use.
    guest.write(mmio::QUEUE_SEL, 0);
    guest.write(mmio::QUEUE_READY, 0);
    for register in OF_A_QUEUE {
        guest.ignores(|guest| guest.write(register, 4));
    }
    guest.ignores(|guest| guest.write(mmio::QUEUE_READY, 1));
    guest.recovers();
}

#[test]
fn a_queue_that_was_not_set_up_in_time_cannot_be_in_a_running_device() {
    let mut guest = Guest::negotiated(RING_RESET);
    driver::start(&mut guest.device);
    for register in OF_A_QUEUE {
        guest.ignores(|guest| guest.write(register, 4));
    }
    guest.ignores(|guest| guest.write(mmio::QUEUE_READY, 1));
    // It can after a reset of its own.
    guest.write(mmio::QUEUE_RESET, 1);
    let layout = guest.queues[0].layout;
    driver::set_up(&mut guest.device, 0, &layout);
    guest.echo(0);
}

#[test]
fn a_queue_that_is_not_ready_is_not_touched() {
    let mut guest = Guest::live(BASIC);
    guest.device.device_mut().holds = true;
    guest.offer(0);
    guest.notify(0);
    guest.write(mmio::QUEUE_SEL, 0);
    guest.write(mmio::QUEUE_READY, 0);
    assert_eq!(guest.device.core().device().queue_resets, [0]);
    assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 0);
    guest.device.process_events();
    guest.offer(0);
    guest.ignores(|guest| guest.notify(0));
    assert_eq!(guest.queues[0].used(), None);
    assert_eq!(guest.interrupts(), 0);
    guest.device.device_mut().holds = false;
    guest.echo(1);
}

#[test]
fn a_queue_is_reset_alone_and_set_up_anew() {
    let mut guest = Guest::live(RING_RESET);
    guest.echo(1);
    guest.device.device_mut().holds = true;
    guest.offer(0);
    guest.notify(0);
    guest.device.device_mut().holds = false;
    guest.write(mmio::QUEUE_SEL, 0);
    guest.write(mmio::QUEUE_RESET, 1);
    assert_eq!(guest.read(mmio::QUEUE_RESET), 0);
    assert_eq!(guest.read(mmio::QUEUE_READY), 0);
    assert_eq!(guest.device.core().device().queue_resets, [0]);
    assert_eq!(guest.device.core().queue_layout(0).descriptors, 0);
    guest.device.process_events();
    assert_eq!(guest.queues[0].used(), None);
    guest.echo(1);
    // With another size, at another place, from index 0.
    guest.queues[0] = driver::DriverQueue::new(&guest.memory, 0xa000, 4);
    let layout = guest.queues[0].layout;
    driver::set_up(&mut guest.device, 0, &layout);
    assert_eq!(guest.read(mmio::QUEUE_READY), 1);
    assert_eq!(guest.read(mmio::QUEUE_RESET), 0);
    guest.echo(0);
    guest.echo(1);
}

#[test]
fn a_queue_is_not_reset_without_the_feature_or_before_driver_ok() {
    let mut guest = Guest::live(BASIC);
    guest.ignores(|guest| guest.write(mmio::QUEUE_RESET, 1));
    guest.echo(0);
    let mut guest = Guest::negotiated(RING_RESET);
    guest.ignores(|guest| guest.write(mmio::QUEUE_RESET, 1));
    let mut guest = Guest::live(RING_RESET);
    guest.write(mmio::QUEUE_RESET, 0);
    guest.echo(0);
}

#[test]
fn an_interrupt_lasts_until_it_is_acknowledged_and_rises_anew_if_a_cause_is_left() {
    let mut guest = Guest::live(BASIC);
    guest.echo(0);
    for other in [0, 2, 4, 0x8000_0000] {
        guest.write(mmio::INTERRUPT_ACK, other);
        assert_eq!(guest.interrupts(), mmio::INT_USED_BUFFER);
    }
    guest.acknowledge();
    guest.echo(1);
    assert_eq!(guest.interrupts(), mmio::INT_USED_BUFFER);
}

#[test]
fn there_are_no_regions_of_shared_memory() {
    let mut guest = Guest::new();
    for region in [0, 1, 0xff, u32::MAX] {
        guest.write(mmio::SHM_SEL, region);
        for register in (mmio::SHM_LEN_LOW..=mmio::SHM_BASE_HIGH).step_by(4) {
            assert_eq!(guest.read(register), u32::MAX);
        }
    }
}

#[test]
fn registers_that_are_read_only_or_nowhere_are_not_written() {
    let mut guest = Guest::live(BASIC);
    for register in READ_ONLY.into_iter().chain([0x01c, 0x040, 0x0c4, 0x0f8]) {
        let before = guest.read(register);
        guest.ignores(|guest| guest.write(register, 0x5a5a_5a5a));
        assert_eq!(guest.read(register), before, "{register:#x}");
    }
}

#[test]
fn registers_are_accessed_by_32_aligned_bits_and_not_else() {
    let mut guest = Guest::live(BASIC);
    for offset in 0..mmio::CONFIG {
        for len in [0, 1, 2, 3, 4, 5, 7, 8] {
            if offset % 4 == 0 && len == 4 {
                continue;
            }
            let mut data = [0xff; 8];
            guest.device.read(offset, &mut data[..len]);
            assert_eq!(data, [0xff; 8], "{len} bytes at {offset:#x}");
            guest.ignores(|guest| {
                let effect = guest.device.write(offset, &[0; 8][..len]);
                assert!(matches!(effect, Effect::None));
            });
        }
    }
    guest.echo(0);
}

#[test]
fn configuration_is_accessed_by_any_width_and_ends_in_zeros() {
    let mut guest = Guest::live(BASIC);
    let bytes = *b"goldcres";
    guest.device.device_mut().config = bytes;
    let padded = |at: usize| bytes.get(at).copied().unwrap_or(0);
    for offset in 0..20 {
        for len in 0..=8 {
            let mut data = [0xff; 8];
            let register = mmio::CONFIG + offset as u64;
            guest.device.read(register, &mut data[..len]);
            let expected: Vec<_> = (offset..offset + len).map(padded).collect();
            assert_eq!(data[..len], expected);
            let _ = guest.device.write(register, &data[..len]);
        }
    }
    assert_eq!(guest.device.core().device().config, bytes);
    for offset in [0xeff, u64::from(u32::MAX), u64::MAX] {
        let mut data = [0xff; 8];
        guest.device.read(offset, &mut data);
        assert_eq!(data, [0; 8]);
        let _ = guest.device.write(offset, &data);
    }
}

/// Each layout that a queue cannot have, and why.
#[test]
fn layouts_that_a_queue_cannot_have_are_refused() {
    let good = Guest::new().queues[0].layout;
    for size in [0, 3, 6, 16, 0x8000, 0xffff, 0x1_0000, 0x1_0008, u32::MAX] {
        let error = refusal(QueueLayout { size, ..good });
        assert_eq!(error, QueueError::Size { size, max: 8 });
    }
    let set: [fn(&mut QueueLayout, u64); 3] = [
        |layout, address| layout.descriptors = address,
        |layout, address| layout.available = address,
        |layout, address| layout.used = address,
    ];
    for (set, align) in set.into_iter().zip([16, 2, 4]) {
        let with = |address| {
            let mut layout = good;
            set(&mut layout, address);
            refusal(layout)
        };
        for shift in [1, align / 2, align - 1] {
            let error = with(0x5000 + shift);
            assert!(matches!(error, QueueError::Misaligned { .. }), "{error}");
        }
        // At the end of a region that another follows, of RAM, in the hole, far away, and where addresses wrap.
        for address in [0xfff0, 0x1_fff0, 0x2_0000, 0x4_fff0, 1 << 40, u64::MAX - 15] {
            let error = with(address);
            assert!(matches!(error, QueueError::OutsideRam { .. }), "{error}");
        }
    }
}

fn refusal(layout: QueueLayout) -> QueueError {
    let mut guest = Guest::negotiated(BASIC);
    driver::set_up(&mut guest.device, 0, &layout);
    assert_eq!(guest.read(mmio::QUEUE_READY), 0);
    driver::start(&mut guest.device);
    guest.ignores(|guest| guest.notify(0));
    let error = guest.queue_error();
    guest.recovers();
    error
}
