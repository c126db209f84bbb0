//! Saved state: of devices, of whole machines, and what lies beside their memory.

use std::error::Error;
use std::fs;

use goldcrest_archive::{Key, Writer};
use goldcrest_bus::Device;
use goldcrest_chipset::{I8042, Output, Rtc, Serial, SystemClock};
use goldcrest_fuzz::{machine_state, state, working_set};
use goldcrest_irq::{Ioapic, IrqLine, Msi, MsiSink, Pic};
use goldcrest_monitor::{
    BalloonConfig, CloneConfig, Control, Image, Machine, MachineConfig, RestoreConfig,
    SnapshotFiles, SnapshotKind, StopReason, balloon_device, entropy_device, run,
};
use goldcrest_snapshot::{Snapshot, seal, seal_state};
use goldcrest_vcpu::scripted::Scripted;
use goldcrest_virtio::driver::{DriverQueue, initialise};
use goldcrest_virtio::spec::feature;
use goldcrest_virtio::{Mmio, VirtioDevice};

use crate::Seeds;
use crate::images::{direct_note, unikernel};

/// Every kind of snapshot: its envelope, and its state alone as the target `state` takes it.
pub(crate) fn snapshot_seeds() -> Result<Seeds, Box<dyn Error>> {
    struct Nowhere;
    impl MsiSink for Nowhere {
        fn signal(&self, _: Msi) {}
    }
    let mut serial = Serial::new(IrqLine::detached(), Output::discard());
    let _ = serial.write(1, &[3, 0, 3, 8]);
    serial.enqueue(b"hello");
    let pic = Pic::new(IrqLine::detached());
    for (_, mut ports) in pic.ports() {
        let _ = ports.write(0, &[0x11, 0x30]);
    }
    let mut ioapic = Ioapic::new(std::sync::Arc::new(Nowhere));
    let line = ioapic.line(4);
    for (select, value) in [(0x18u32, 0x8031u32), (0x19, 0x0100_0000)] {
        let _ = ioapic.write(0, &select.to_le_bytes());
        let _ = ioapic.write(0x10, &value.to_le_bytes());
    }
    line.set(true);
    let envelopes = [
        sealed(&serial)?,
        sealed(&Rtc::new(SystemClock))?,
        sealed(&I8042::default())?,
        sealed(&pic)?,
        sealed(&ioapic)?,
    ];
    let seeds = (0u8..)
        .zip(envelopes)
        .flat_map(|(choice, (envelope, state))| {
            let len = u8::try_from(state.len()).expect("states are short");
            // What the device goes through after it: a few accesses, and saving it once more.
            let then = [0x00, 0x80, 0x01, 0x0f, 0x00, 0x00, 0x02, 0xff];
            [
                ("envelope", [&[choice], &envelope[..]].concat()),
                ("envelope", [&[choice | 0x80], &envelope[..]].concat()),
                ("state", [&[choice, len], &state[..], &then].concat()),
            ]
        });
    Ok(seeds.collect())
}

/// The states of a machine: of a full snapshot, and of what has changed since, with right checksums and to be made right.
pub(crate) fn machine_seeds() -> Result<Seeds, Box<dyn Error>> {
    let image = unikernel(&direct_note(0x10_0000));
    let mut config = MachineConfig {
        virtio: vec![entropy_device(), balloon_device(BalloonConfig::default())],
        ..MachineConfig::new(Image::from_bytes("kernel", image)?)
    };
    config.memory.size = 2 << 20;
    config.control.pause();
    let directory = tempfile::tempdir()?;
    let files = |name: &str| SnapshotFiles {
        state: directory.path().join(format!("{name}.state")),
        memory: directory.path().join(format!("{name}.memory")),
    };
    let save = |control: &Control, name: &str, kind| {
        let saved = control.snapshot(&files(name), kind);
        control.stop(StopReason::Escape);
        saved
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&Scripted::new([]), &config).map(drop));
        save(&config.control, "full", SnapshotKind::Full)
    })?;
    let restored = RestoreConfig {
        machine: CloneConfig {
            paused: true,
            ..CloneConfig::default()
        },
        ..RestoreConfig::new(files("full"))
    };
    let machine = Machine::restore(&Scripted::new([]), &restored)?;
    std::thread::scope(|scope| {
        scope.spawn(|| machine.run().map(drop));
        save(&restored.machine.control, "changes", SnapshotKind::Diff)
    })?;
    let mut seeds = archive_seeds(&files("changes"))?;
    for name in ["full", "changes"] {
        let state = fs::read(files(name).state)?;
        for choice in [0, 0x80] {
            seeds.push(("machine_state", [&[choice], &state[..]].concat()));
        }
    }
    // Indexes: none, a run, runs of which one is not in RAM, and such as touch.
    let indexes: [&[u8]; 4] = [
        &[0],
        &[1, 0, 3],
        &[2, 9, 1, 0xff, 0xff, 0x7f, 2],
        &[2, 1, 1, 0, 1],
    ];
    for index in indexes {
        seeds.push(("machine_state", [&[machine_state::INDEX], index].concat()));
    }
    Ok(seeds)
}

/// Archives of a snapshot, and what is in them: as a whole, as a frame, as the bytes in the chunks.
fn archive_seeds(files: &SnapshotFiles) -> Result<Seeds, Box<dyn Error>> {
    let key = Key::new(&[0x4b; 32]);
    let state = fs::read(&files.state)?;
    let memory = fs::read(&files.memory)?;
    let mut contents = (state.len() as u64).to_le_bytes().to_vec();
    contents.extend(&state);
    contents.extend([0; 8]);
    for (number, page) in (0_u64..512).zip(memory.as_chunks::<4096>().0) {
        if page.iter().any(|byte| *byte != 0) {
            contents.extend((number * 4096).to_le_bytes());
            contents.extend(4096_u64.to_le_bytes());
            contents.extend(page);
        }
    }
    contents.extend([0; 16]);
    let mut seeds = Seeds::new();
    for (choice, key) in [(0, None), (0x80, Some(&key))] {
        let mut writer = Writer::with_id(Vec::new(), key, [0x1d; 16])?;
        writer.put(&contents)?;
        let archive = writer.finish()?;
        if key.is_none() {
            let len = u16::try_from(contents.len() >> 5)?.to_le_bytes();
            let frame = archive.get(68..).unwrap_or_default();
            seeds.push(("archive", [&[1], &len[..], frame].concat()));
        }
        seeds.push(("archive", [&[choice], &archive[..]].concat()));
        seeds.push(("archive", [&[choice | 2], &contents[..]].concat()));
        seeds.push((
            "archive",
            [&[choice | 3], b"some bytes, some bytes".as_slice()].concat(),
        ));
    }
    Ok(seeds)
}

/// Working sets, as they are written and to be given a right checksum: of one extent, and of many that are nearly too many.
pub(crate) fn working_set_seeds() -> Result<Seeds, Box<dyn Error>> {
    type Extents = Vec<(u64, u64)>;
    let sets: [(Extents, Extents); 4] = [
        (vec![(0, 64)], vec![]),
        (vec![(1, 2), (5, 100)], vec![(0, 256)]),
        ((0..128).map(|n| (2 * n, 1)).collect(), vec![(255, 1)]),
        (vec![], vec![(3, 200), (100, 7)]),
    ];
    let mut seeds = Seeds::new();
    for set in sets {
        let sealed = seal_state("working-set", 1, &(working_set::IMAGE, set))?;
        // RAM of 1 MiB, of 8 MiB, and of 1 MiB with the checksum made right.
        for choice in [0, 3, 0x80] {
            seeds.push(("working_set", [&[choice], &sealed[..]].concat()));
        }
    }
    Ok(seeds)
}

/// Messages to page servers, and what is asked after them.
pub(crate) fn page_server_seeds() -> Seeds {
    let region = |address: u64, size: u64, offset: u64| {
        format!(
            r#"{{"base_host_virt_addr":{address},"size":{size},"offset":{offset},"page_size":4096,"page_size_kib":4096}}"#
        )
    };
    let messages = [
        format!("[{}]", region(0x7000_0000, 0x1_0000, 0)),
        format!(
            "[{},{}]",
            region(0x7000_0000, 0x8000, 0x8000),
            region(0x1000, 0x8000, 0)
        ),
        r#"[{"base_host_virt_addr":4096,"size":8192,"offset":4096,"page_size_kib":4096}]"#
            .to_owned(),
        r#"[{"base_host_virt_addr":4096,"size":2097152,"offset":0,"page_size":2097152}]"#
            .to_owned(),
        "[]".to_owned(),
    ];
    // The first range: a page is asked for, four are given back, one of them and another are asked for; any event.
    let mut events = Vec::new();
    for (kind, at) in [(2, 0x0010_u16), (9, 0x0020), (2, 0x0030), (2, 0x0070)] {
        events.push(kind);
        // Which of the ranges takes no byte if there is one.
        events.extend(at.to_le_bytes());
    }
    events.extend([0xff; 33]);
    let message = |message: &String| {
        let len = u16::try_from(message.len()).expect("messages are short");
        let said = [&[0][..], &len.to_le_bytes(), message.as_bytes(), &events].concat();
        ("page_server", said)
    };
    let mut seeds: Seeds = messages.iter().map(message).collect();
    // Two ranges of 64 pages that are right, in an image of 256.
    let made = [15, 0, 0, 2, 0, 0, 0, 0x70, 0, 0, 0, 0, 64, 9, 64, 9];
    seeds.push(("page_server", [&made[..], &events].concat()));
    seeds
}

/// Devices behind the MMIO transport that a driver has set up.
pub(crate) fn virtio_seeds() -> Result<Seeds, Box<dyn Error>> {
    let states = [
        (5, live(state::disk())?),
        (6, live(state::console())?),
        (7, live(state::entropy())?),
        (state::BALLOON, live(state::balloon())?),
        (state::VSOCK, live(state::vsock())?),
        (state::NET, live(state::net())?),
    ];
    let seeds = states.map(|(choice, state)| {
        let len = u8::try_from(state.len()).expect("states are short");
        // Then a driver goes on: it notifies, changes a descriptor, and notifies again.
        let notify = [0x50, 0, 0, 0, 0, 0, 0];
        let change = [0, 0, 0, 0x10, 0, 0, 3];
        let then = [notify, change, notify].concat();
        ("state", [&[choice, len], &state[..], &then].concat())
    });
    Ok(seeds.into())
}

fn live<D: VirtioDevice + Snapshot>(device: D) -> Result<Vec<u8>, Box<dyn Error>> {
    let memory = state::memory();
    let mut device = Mmio::new(device, memory.clone(), IrqLine::detached());
    let queue = DriverQueue::new(&memory, 0, 16);
    initialise(&mut device, feature::VERSION_1, &[&queue]);
    Ok(sealed(&device)?.1)
}

/// The envelope of an object's state, and the state in it.
fn sealed<S: Snapshot>(object: &S) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let envelope = seal(object)?;
    // Magic, length of the kind, version, length of the state; and the checksum behind.
    let state = envelope[4 + 1 + S::KIND.len() + 2 + 4..envelope.len() - 4].to_vec();
    Ok((envelope, state))
}
