//! Writes the seeds that no fuzzer would find soon: images and snapshots that are well-formed.
//!
//! `cargo run --example seeds -- FOLDER` writes them to `FOLDER/TARGET/`. `ci/fuzz` starts from them and `corpus/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use goldcrest_abi::note::{DirectEntry, FLAG_PVCLOCK};
use goldcrest_bus::Device;
use goldcrest_chipset::{I8042, Output, Rtc, Serial, SystemClock};
use goldcrest_fuzz::state;
use goldcrest_irq::{Ioapic, IrqLine, Msi, MsiSink, Pic};
use goldcrest_monitor::{
    BalloonConfig, CloneConfig, Control, Image, Machine, MachineConfig, RestoreConfig,
    SnapshotFiles, SnapshotKind, StopReason, balloon_device, entropy_device, run,
};
use goldcrest_snapshot::{Snapshot, seal};
use goldcrest_vcpu::scripted::Scripted;
use goldcrest_virtio::driver::{DriverQueue, initialise};
use goldcrest_virtio::spec::feature;
use goldcrest_virtio::{Mmio, VirtioDevice};
use images::{
    ElfBuilder, R, W, X, bzimage, direct_note, elf32, hermit_guest, kernel_segments, many_tags,
    multiboot_flat, multiboot_header, multiboot2_header, patch, pvh_kernel, segment, solo5_guest,
    tag, unikernel, vmlinux,
};

#[path = "../../crates/boot/tests/images/mod.rs"]
mod images;
#[path = "../../crates/firmware/tests/support/mod.rs"]
mod support;

/// How an image is loaded: the last two bytes of its seed. As it offers itself; with all that a guest can be given; and
/// the same in memory on both sides of the hole below 4 GiB.
const WAYS: [[u8; 2]; 3] = [[0x04, 0], [0xf4, 0x13], [0xff, 0x0f]];
/// Bytes of a segment that a seed needs.
const SEGMENT_BYTES: usize = 16;

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("name the folder to write to")?;
    let mut count = 0;
    for (target, seed) in [
        image_seeds(),
        foreign_seeds(),
        multiboot_seeds(),
        flat_seeds(),
        file_seeds(),
        cmdline_seeds(),
        snapshot_seeds()?,
        machine_seeds()?,
        virtio_seeds()?,
        text_seeds(),
        api_seeds(),
        disk_seeds(),
    ]
    .concat()
    {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{count:02}")), seed)?;
        count += 1;
    }
    println!("{count} seeds");
    Ok(())
}

fn image_seeds() -> Seeds {
    let traps = DirectEntry {
        flags: FLAG_PVCLOCK,
        trap_vectors: 0x10_0200,
        trap_stack: 0x10_b000,
        syscall_entry: 0x10_0100,
        ..direct_note(0x10_0000)
    };
    let ring_0 = DirectEntry {
        ring: 0,
        stack_size: 0x4000,
        ..direct_note(0x10_0000)
    };
    let elves = [
        unikernel(&traps),
        unikernel(&ring_0),
        pvh_kernel(&0x100_0000u32.to_le_bytes()),
        pvh_kernel(&0x100_0000u64.to_le_bytes()),
        vmlinux(),
    ];
    // A kernel of 33 units, one more than lie before its entry point.
    let kernel =
        patch(bzimage(), 0x1f4, &33u32.to_le_bytes())[..images::KERNEL_OFFSET + 33 * 16].to_vec();
    let fixed = patch(kernel.clone(), 0x234, &[0]);
    let elves = elves.iter().map(|elf| ("elf", compact(elf)));
    let kernels = [("bzimage", kernel), ("bzimage", fixed)];
    let images: Vec<_> = elves.chain(kernels).collect();
    images
        .iter()
        .flat_map(|(target, image)| WAYS.map(|way| (*target, [image, &way[..]].concat())))
        .collect()
}

/// Guests that are made for other monitors, as they are and with what each format has.
fn foreign_seeds() -> Seeds {
    let with = |name, image: &[u8], way: u8| (name, [image, &[way]].concat());
    let solo5 = compact(&solo5_guest());
    let lonely = images::solo5_with(&images::abi_desc(1, 2), &images::manifest(&[])).build();
    let full: Vec<_> = (0..63).map(|n| format!("net{n}")).collect();
    let full: Vec<_> = full
        .iter()
        .map(|name| (name.as_str(), images::NET))
        .collect();
    let full = images::solo5_with(&images::abi_desc(1, 2), &images::manifest(&full)).build();
    let many: Vec<_> = (1..13u64)
        .map(|n| segment(R | X, n << 20, &[0x90; 16], 16))
        .collect();
    let many = ElfBuilder::new(1 << 20, many)
        .note(b"Solo5\0", images::ABI1, &images::abi_desc(1, 2))
        .note(b"Solo5\0", images::MFT1, &images::manifest(&[]))
        .build();
    let relas = [
        images::rela(0x1010, 8, 0, 0x123),
        images::rela(0x1018, 1, 0, 5),
        images::rela(0x1020, 6, 1, 0),
    ];
    let tables = [
        relas.concat(),
        images::symbol(1, false, 0x10),
        images::symbol(0, true, 0),
    ]
    .concat();
    vec![
        with("solo5", &solo5, 0),
        with("solo5", &solo5, 0xa0),
        with("solo5", &solo5, 1),
        with("solo5", &compact(&lonely), 3),
        with("solo5", &compact(&full), 3),
        with("solo5", &compact(&many), 3),
        with("hermit", &compact(&hermit_guest()), 0x80),
        with("hermit", &relocatable(&tables, relas.len()), 0x80),
        with("hermit", &relocatable(&tables, relas.len()), 0),
        ("solo5_hypercalls", solo5_calls()),
        ("hermit_hypercalls", hermit_calls()),
    ]
}

/// A Hermit guest that can lie anywhere, without padding: code, tables, data, and where the dynamic section is.
fn relocatable(tables: &[u8], count: usize) -> Vec<u8> {
    let size = u64::try_from(24 * count).unwrap_or(0);
    let words = [7, 0x800, 8, size, 9, 24, 6, 0x800 + size, 0, 0];
    let dynamic: Vec<u8> = words
        .iter()
        .flat_map(|word: &u64| word.to_le_bytes())
        .collect();
    let segments = vec![
        segment(R | X, 0, &[0x90; 16], 16),
        segment(R, 0x800, tables, 0x400),
        segment(R | W, 0x1000, &[0x22; 16], 0x800),
        segment(R | W, 0x4000, &dynamic, 0x100),
    ];
    let image = images::hermit_notes(ElfBuilder::new(0x8, segments), 4, 1).build();
    let mut small = compact_to(&image, 256);
    small[16] = 3;
    small[images::PROGRAM_HEADERS + 56 * 4] = 2;
    small
}

/// Calls of each kind that are well-formed, as `solo5_hypercalls` takes them.
fn solo5_calls() -> Vec<u8> {
    let mut seed = Vec::new();
    let script = |choices: &[u8]| {
        let len = u8::try_from(choices.len()).unwrap_or(0);
        [&[0x90, len], choices].concat()
    };
    // Where the argument is, and five words.
    let argument = |words: [&[u8]; 5]| [&[0xa0, 0, 0x20][..], &words.concat()].concat();
    const AT: &[u8] = &[0x80, 0, 0x30];
    const NONE: &[u8] = &[0];
    let call = |number: u8| vec![number, 0, 0x20];
    /// What the host answers, the words of the argument, the hypercall's number.
    type Call<'a> = (&'a [u8], [&'a [u8]; 5], u8);
    let calls: [Call<'_>; 12] = [
        (&[], [AT, &[0x41], NONE, NONE, NONE], 2),
        (&[], [&[1], &[0x40], AT, &[0x41], NONE], 4),
        (&[], [&[1], &[0x42], AT, &[0x44], NONE], 5),
        (&[1], [&[1], &[0x42], AT, &[0x44], NONE], 5),
        (&[0], [&[2], AT, &[0x80, 60, 0], NONE, NONE], 6),
        (&[0x70], [&[3], AT, &[0x80, 0, 4], NONE, NONE], 7),
        (&[0x70, 0x70], [NONE; 5], 3),
        (
            &[2, 0, 0, 0, 0, 0],
            [&[0x80, 0, 9], NONE, NONE, NONE, NONE],
            3,
        ),
        (&[0xfe, 0, 0, 0, 0, 0], [&[0xf0], NONE, NONE, NONE, NONE], 3),
        (&[5], [NONE; 5], 1),
        (&[], [AT, &[0x80, 255, 0], NONE, NONE, NONE], 8),
        (&[], [&[0xf1], &[0x80, 255, 0], NONE, NONE, NONE], 8),
    ];
    for (choices, words, number) in calls {
        seed.extend(script(choices));
        seed.extend(argument(words));
        seed.extend(call(number));
    }
    seed
}

/// Words and calls, as `hermit_hypercalls` takes them.
fn hermit_calls() -> Vec<u8> {
    let mut seed = Vec::new();
    let word = |at: u16, value: &[u8]| [&[0x80][..], &at.to_le_bytes(), value].concat();
    // Page tables at 0x1000, 0x2000, 0x3000 and 0x4000, to the page at 0x5000.
    for table in 1..5u8 {
        seed.extend(word(u16::from(table) << 12, &[table + 1]));
    }
    // Standard output, the virtual address 0x10, five bytes: fields that are not aligned.
    seed.extend(word(0x5000, &[0x41]));
    seed.extend(word(0x5008, &[0x40]));
    seed.extend(word(0x5010, &[0x45]));
    for choice in 0..11u8 {
        seed.extend([choice, 0, 0x50]);
        seed.extend([choice | 0x40, 0, 0x50]);
    }
    seed
}

/// How images of protocols with modules are loaded: as they offer themselves; with all that a guest can be given; and the
/// same by the protocol itself, in memory on both sides of the hole below 4 GiB.
const WAYS_WITH_MODULES: [[u8; 2]; 3] = [[0x04, 0], [0xf0, 0x93], [0x6b, 0xcf]];

/// Multiboot kernels of both versions: an ELF32, a flat binary, a relocatable one. The last byte is where the header is,
/// in units of its alignment.
fn multiboot_seeds() -> Seeds {
    let small = |header: &[u8]| {
        let mut segments = kernel_segments(header);
        for segment in &mut segments {
            segment.bytes.truncate(header.len().max(SEGMENT_BYTES));
        }
        let elf = elf32(3, 0x10_0004, &segments);
        // Without the padding before the segments.
        let (headers, body) = (&elf[..52 + 32 * 2], &elf[4096..]);
        let mut image = [headers, &body[..header.len()]].concat();
        image.resize(image.len().next_multiple_of(8), 0);
        let offset = headers.len() as u32;
        for (index, size) in [(0, header.len()), (1, 0)] {
            let at = 52 + 32 * index;
            image[at + 4..at + 8].copy_from_slice(&offset.to_le_bytes());
            image[at + 16..at + 20].copy_from_slice(&(size as u32).to_le_bytes());
        }
        image
    };
    let flat = multiboot_flat()[..0x180].to_vec();
    // Its address fields begin after three others; the second is where loading ends.
    let flat = patch(flat, 0x100 + 20, &0u32.to_le_bytes());
    let flat = patch(flat, 0x100 + 28, &0x10_0140u32.to_le_bytes());
    let addresses = [
        tag(2, 0, &[0x10_0000, u32::MAX, 0, 0x10_4000]),
        tag(3, 0, &[0x10_0010]),
    ];
    let seeds = [
        ("multiboot", small(&multiboot_header(3, &[])), 116 / 4),
        ("multiboot", flat, 64),
        // Headers of this version lie at a multiple of 8, as 120 is.
        (
            "multiboot2",
            small_at_8(&small(&multiboot2_header(&many_tags()))),
            120 / 8,
        ),
        ("multiboot2", multiboot2_header(&addresses), 0),
    ];
    let ways = |(target, image, place): (&'static str, Vec<u8>, u8)| {
        WAYS_WITH_MODULES.map(|way| (target, [&image[..], &way, &[place]].concat()))
    };
    seeds.into_iter().flat_map(ways).collect()
}

/// The same ELF32, with four bytes between its headers and its segment.
fn small_at_8(elf: &[u8]) -> Vec<u8> {
    let (headers, body) = elf.split_at(116);
    let image = [headers, &[0; 4], body].concat();
    patch(image, 52 + 4, &120u32.to_le_bytes())
}

/// Flat binaries in each mode, and an ELF32.
fn flat_seeds() -> Seeds {
    let seed = |image: &[u8], choice: u8, short: u16, way: [u8; 2]| {
        let trailer = [&[choice][..], &short.to_le_bytes(), &way].concat();
        let mut padded = trailer;
        padded.resize(20, 0);
        ("flat", [image, &padded].concat())
    };
    let elf = elf32(
        3,
        0x10_0000,
        &[images::segment(5, 0x10_0000, &[0x90; 16], 64)],
    );
    let mut seeds = vec![seed(&elf, 0, 0, [0, 0x90])];
    for (choice, short) in [
        (1, 0x07c0),
        (1, 0x0000),
        (2, 0x8100),
        (3, 0x8200),
        (2, 0x00a0),
    ] {
        for way in WAYS_WITH_MODULES {
            seeds.push(seed(&[0xf4; 32], choice, short, [way[0] & !4, way[1]]));
        }
    }
    seeds
}

/// A beginning of each kind of file that is looked into.
fn file_seeds() -> Seeds {
    let mut pe = vec![0; 0x200];
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3c] = 0x40;
    pe[0x40..0x48].copy_from_slice(b"PE\0\0\x64\x86\x02\0");
    pe[0x54] = 0xf0;
    pe[0x58 + 68] = 10;
    pe[0x58 + 0xf0 + 40..][..6].copy_from_slice(b".linux");
    let mut library = vmlinux()[..0x80].to_vec();
    library[16] = 3;
    let mut module = elf32(3, 0, &[]);
    module.truncate(52);
    module[16] = 1;
    let files = [
        pe,
        library,
        module,
        b"#!/bin/sh -e\n".to_vec(),
        b"\x1f\x8b\x08".to_vec(),
        "text, naïve\n".into(),
        patch(vec![0; 0x440], 0x438, &[0x53, 0xef]),
    ];
    files.map(|file| ("identify", file)).into()
}

/// The same ELF without most of its segments' bytes, and without padding.
fn compact(elf: &[u8]) -> Vec<u8> {
    compact_to(elf, SEGMENT_BYTES)
}

/// As [`compact`], with up to `most` bytes of each segment.
fn compact_to(elf: &[u8], most: usize) -> Vec<u8> {
    let field = |at: usize| usize::try_from(images_u64(elf, at)).unwrap_or(usize::MAX);
    let count = usize::from(elf[56]);
    let headers_end = images::PROGRAM_HEADERS + 56 * count;
    let mut small = elf[..headers_end].to_vec();
    for header in (images::PROGRAM_HEADERS..headers_end).step_by(56) {
        let (offset, size) = (field(header + 8), field(header + 32));
        let is_note = elf[header] == 4;
        let kept = if is_note { size } else { size.min(most) };
        let at = small.len();
        small[header + 8..header + 16].copy_from_slice(&(at as u64).to_le_bytes());
        small[header + 32..header + 40].copy_from_slice(&(kept as u64).to_le_bytes());
        small.extend_from_slice(&elf[offset..offset + kept]);
    }
    small
}

fn images_u64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..]
        .first_chunk()
        .expect("the images are well-formed");
    u64::from_le_bytes(*field)
}

/// Each image with a command line, and at the limits of those that have one.
fn cmdline_seeds() -> Seeds {
    let line = |choice: u8, text: &[u8]| ("cmdline", [&[choice], text].concat());
    let text = "console=ttyS0 naïve\tquiet".as_bytes();
    let plain = (0..4).map(|image| line(image, text));
    let limits = [2047, 2048].map(|len| line(1, &vec![b'x'; len]));
    plain.chain(limits).collect()
}

/// Every kind of snapshot: its envelope, and its state alone as the target `state` takes it.
fn snapshot_seeds() -> Result<Seeds, Box<dyn Error>> {
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
fn machine_seeds() -> Result<Seeds, Box<dyn Error>> {
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
    let mut seeds = Seeds::new();
    for name in ["full", "changes"] {
        let state = fs::read(files(name).state)?;
        for choice in [0, 0x80] {
            seeds.push(("machine_state", [&[choice], &state[..]].concat()));
        }
    }
    Ok(seeds)
}

/// Loader entries, as kernel-install and people write them.
fn text_seeds() -> Seeds {
    let entry = "a-6.1.0-39+3-1.conf\ntitle Debian\nversion 6.1.0-39\nmachine-id 0123\nsort-key debian\noptions quiet\n\
        linux /a/linux\ninitrd /a/initrd\n";
    let other = "b-6.1.0~rc1^2.conf\ntitle Debian\nversion 6.1.0-40\nsort-key debian\nlinux /b\ntimeout 3\ndefault a-*[0-9]?\n";
    let third = "c.conf\nlinux c\nPRETTY_NAME=\"a \\\"b\"\nID='x'\ntimeout menu-force\n";
    let keys = "j\u{1b}[B\u{1b}[A\r";
    let text = [entry, other, third, keys].join("\0");
    vec![("loader_entries", text.into_bytes())]
}

/// Requests to the control API: each path, in orders that are right and wrong.
fn api_seeds() -> Seeds {
    let configured = r#"PUT /machine-config {"vcpu_count":2,"mem_size_mib":64,"huge_pages":"2M","track_dirty_pages":true}
PATCH /machine-config {"mem_size_mib":128}
PUT /boot-source {"kernel_image_path":"k","initrd_path":"i","boot_args":"a"}
PUT /drives/r {"drive_id":"r","is_root_device":true,"path_on_host":"d","is_read_only":true,"partuuid":"0eaa-01","rate_limiter":{"bandwidth":{"size":9,"one_time_burst":5,"refill_time":100},"ops":{"size":1,"refill_time":1}}}
PUT /network-interfaces/e {"iface_id":"e","host_dev_name":"goldcrest:user,fwd=tcp:1:2","guest_mac":"02:00:00:00:00:01","mtu":1500,"rx_rate_limiter":{},"tx_rate_limiter":{"ops":{"size":1,"refill_time":1}}}
PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap0"}
PUT /vsock {"guest_cid":3,"uds_path":"v"}
PUT /balloon {"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1,"free_page_reporting":true}
PUT /entropy {"rate_limiter":{"ops":{"size":5,"refill_time":9}}}
PUT /serial {"serial_out_path":"s"}
PUT /mmds/config {"version":"V2","network_interfaces":["e"],"ipv4_address":"169.254.7.7","imds_compat":true}
PUT /mmds {"a":{"b":["c",1,null]}}
PATCH /mmds {"a":{"b":null}}
GET /mmds
GET /vm/config
"#;
    let running = r#"PUT /actions {"action_type":"InstanceStart"}
PATCH /vm {"state":"Paused"}
PUT /snapshot/create {"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}
PATCH /vm {"state":"Resumed"}
PATCH /drives/r {"drive_id":"r","path_on_host":"e","rate_limiter":{"bandwidth":{"size":0,"refill_time":0}}}
PATCH /network-interfaces/e {"iface_id":"e","rx_rate_limiter":{"ops":{"size":2,"refill_time":2}}}
PATCH /balloon {"amount_mib":3}
PATCH /balloon/statistics {"stats_polling_interval_s":2}
GET /balloon/statistics
GET /balloon
PUT /actions {"action_type":"SendCtrlAltDel"}
PUT /actions {"action_type":"FlushMetrics"}
GET /goldcrest/v1/status
GET /goldcrest/v1/metrics
GET /goldcrest/v1/metrics/json
GET /goldcrest/v1/openapi
GET /version
PUT /goldcrest/v1/stop {}
"#;
    let loaded = r#"PUT /mmds {"a":1}
PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"},"resume_vm":true,"track_dirty_pages":true,"network_overrides":[{"iface_id":"e","host_dev_name":"tap1"}],"vsock_override":{"uds_path":"w"},"clock_realtime":true}
PUT /snapshot/load {"snapshot_path":"s","mem_file_path":"m","mem_backend":{"backend_type":"Uffd","backend_path":"m"}}
PUT /logger {"log_path":"l","level":"Debug","show_level":true,"show_log_origin":true,"module":"a"}
PUT /cpu-config {"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[]}]}
GET /
"#;
    let seeds = [
        configured.to_owned(),
        [configured, running].concat(),
        [running, configured, running].concat(),
        loaded.to_owned(),
        [loaded, running].concat(),
    ];
    seeds.map(|seed| ("api", seed.into_bytes())).to_vec()
}

/// Disks as real tools make them, where these are installed.
fn disk_seeds() -> Seeds {
    const TOOLS: [&str; 7] = [
        "debugfs", "mkfs.fat", "mcopy", "mmd", "mke2fs", "sgdisk", "sfdisk",
    ];
    let Some(shop) = support::Workshop::with(&TOOLS) else {
        return Seeds::new();
    };
    let kernel = support::kernel(1400);
    let uki = small_uki(&kernel);
    shop.write("uki", &uki);
    let mut seeds = vec![("pe", uki)];
    shop.write("tree/vmlinuz", &kernel);
    shop.write("tree/etc/os-release", "PRETTY_NAME=x\n");
    std::os::unix::fs::symlink("vmlinuz", shop.path("tree/link")).expect("the tree is ours");
    for options in ["ext2", "ext3", "ext4"] {
        shop.image("ext", 256);
        let arguments = [
            "-q", "-F", "-t", options, "-b", "1024", "-N", "16", "-d", "tree",
        ];
        let journal: &[&str] = if options == "ext2" {
            &[]
        } else {
            &["-O", "^has_journal"]
        };
        shop.run("mke2fs", &[&arguments[..], journal, &["ext"]].concat());
        seeds.push(("ext4", sparse(&shop.bytes("ext"))));
        seeds.push(("boot_disk", sparse(&shop.bytes("ext"))));
    }
    // Changes in a journal, of which one is void.
    shop.image("ext", 2304);
    let arguments = [
        "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "16", "-J", "size=1", "-d", "tree", "ext",
    ];
    shop.run("mke2fs", &arguments);
    let block = shop.run("debugfs", &["-R", "bmap /vmlinuz 0", "ext"]);
    shop.write("new", [0x5a; 1024]);
    shop.write(
        "script",
        format!("jo\njw -b {} new\njw -r 99\njc\n", block.trim()),
    );
    shop.run("debugfs", &["-w", "-f", "script", "ext"]);
    seeds.push(("ext4", sparse(&shop.bytes("ext"))));
    for (width, kib) in [("12", 256), ("16", 2304), ("32", 2304)] {
        shop.image("fat", kib);
        shop.run("mkfs.fat", &["-F", width, "-s", "1", "-f", "1", "fat"]);
        if width == "12" {
            shop.run(
                "mmd",
                &[
                    "-i",
                    "fat",
                    "::/EFI",
                    "::/EFI/Linux",
                    "::/loader",
                    "::/loader/entries",
                ],
            );
            shop.run(
                "mcopy",
                &["-i", "fat", "uki", "::/EFI/Linux/a long name.efi"],
            );
            shop.write("entry", "title T\nlinux /EFI/Linux/x\n");
            shop.run(
                "mcopy",
                &["-i", "fat", "entry", "::/loader/entries/entry+1.conf"],
            );
            shop.run("mcopy", &["-i", "fat", "entry", "::/loader/loader.conf"]);
        }
        seeds.push(("fat", sparse(&shop.bytes("fat"))));
        seeds.push(("boot_disk", sparse(&shop.bytes("fat"))));
    }
    shop.image("disk", 2304);
    shop.run(
        "sgdisk",
        &[
            "-a",
            "1",
            "-n",
            "1:64:+512",
            "-t",
            "1:ef00",
            "-n",
            "2:600:+100",
            "disk",
        ],
    );
    seeds.push(("partitions", sparse(&shop.bytes("disk"))));
    shop.image("fat", 256);
    shop.run("mkfs.fat", &["-F", "12", "fat"]);
    shop.put("fat", "disk", 64 * 512);
    seeds.push(("boot_disk", sparse(&shop.bytes("disk"))));
    shop.image("disk", 2304);
    shop.write("layout", "label: dos\nstart=8, size=100, type=ef\nstart=200, size=400, type=5\nstart=208, size=8\nstart=300, size=8\n");
    let script = format!(
        "/usr/sbin/sfdisk --no-reread disk < {}",
        shop.path("layout").display()
    );
    shop.run("sh", &["-c", &script]);
    seeds.push(("partitions", sparse(&shop.bytes("disk"))));
    seeds
}

/// The records of a disk with blocks of 512 bytes (`fuzz/src/disk_image.rs`).
fn sparse(image: &[u8]) -> Vec<u8> {
    let mut records = vec![0];
    for (place, unit) in (0_u16..).zip(image.chunks(64)) {
        if unit.iter().any(|byte| *byte != 0) {
            records.extend(place.to_le_bytes());
            records.extend(unit);
        }
    }
    records
}

/// A PE image with the sections of a unified kernel image, and nothing else.
fn small_uki(kernel: &[u8]) -> Vec<u8> {
    let parts: [(&[u8; 8], &[u8]); 4] = [
        (b".osrel\0\0", b"ID=debian\nVERSION_ID=12\n"),
        (b".cmdline", b"root=/dev/vda2\0"),
        (b".linux\0\0", kernel),
        (b".initrd\0", b"initrd"),
    ];
    let mut image = vec![0; 64];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 64;
    image.extend(b"PE\0\0\x64\x86\x04\0");
    image.extend([0; 16]);
    let mut at = u32::try_from(image.len() + 40 * parts.len()).expect("it is small");
    for (name, content) in &parts {
        let len = u32::try_from(content.len()).expect("it is small");
        image.extend(*name);
        image.extend([len, at, len, at].map(u32::to_le_bytes).concat());
        image.extend([0; 16]);
        at += len;
    }
    image.extend(parts.iter().flat_map(|(_, content)| content.to_vec()));
    image
}

/// Devices behind the MMIO transport that a driver has set up.
fn virtio_seeds() -> Result<Seeds, Box<dyn Error>> {
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
