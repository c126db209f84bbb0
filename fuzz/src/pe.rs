//! Any bytes as an EFI program: a unified kernel image, its command line, its kernel.

use goldcrest_firmware::entry::{Program, unified_program};
use goldcrest_firmware::linux::{BootParams, Handover, Header, MemoryRange};
use goldcrest_firmware::{File, MemoryDisk};

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(512), 0);
    let volume = MemoryDisk::new(bytes).into_disk("vda").whole();
    match unified_program(&File::of(&volume), "quiet") {
        Ok(Program::Linux(program)) => {
            for part in program.initrds.iter().chain([&program.kernel]) {
                assert!(part.size() <= volume.size());
                assert!(part.read_all(1 << 20).is_ok());
            }
            assert!(program.cmdline.ends_with("quiet"));
            if let Ok(header) = Header::read(&program.kernel) {
                start(&header, program.kernel.size());
            }
        }
        Ok(Program::EfiApplication(part)) => assert_eq!(part.size(), volume.size()),
        _ => {}
    }
}

/// What is believed of a kernel fits together.
fn start(header: &Header, size: u64) {
    assert_eq!(header.kernel_offset + header.kernel_size, size);
    assert!(header.kernel_size <= header.memory_size && header.alignment.is_power_of_two());
    let map = [MemoryRange {
        start: 0,
        len: 1,
        kind: 1,
    }];
    let handover = Handover {
        kernel: header.alignment,
        cmdline: 0x1000,
        initrd: (0, 0),
        rsdp: 0,
        memory_map: &map,
    };
    let params = BootParams::new(header, &handover);
    assert_eq!(params.as_bytes()[0x1e8], 1);
}
