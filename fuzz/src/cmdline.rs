//! Command lines: what every protocol hands the guest is what was asked for, or it is refused.

use goldcrest_boot::{BootConfig, BootError, Image, Loaded, Protocol, load};
use goldcrest_memory::GuestRam;

use crate::images::{
    bzimage, direct_note, pvh_kernel, read, read_u32, read_u64, unikernel, vmlinux,
};

/// Where the images' `boot_params` and `hvm_start_info` have the address, and the size.
const CMD_LINE_PTR: u64 = 0x228;
const CMDLINE_SIZE: usize = 0x238;
const PVH_CMDLINE: u64 = 24;

struct Guests {
    ram: GuestRam,
    images: [Image; 4],
}

thread_local! {
    static GUESTS: Guests = Guests {
        ram: crate::images::ram(24 << 20),
        images: [
            bzimage(),
            vmlinux(),
            pvh_kernel(&0x100_0000u32.to_le_bytes()),
            unikernel(&direct_note(0x10_0000)),
        ]
        .map(|bytes| Image::from_bytes("guest", bytes).expect("not empty")),
    };
}

/// Runs the target: the first byte chooses the image, the rest is the command line.
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let cmdline = String::from_utf8_lossy(rest);
    GUESTS.with(|guests| {
        let image = &guests.images[usize::from(choice & 3)];
        if choice & 4 == 0 || choice & 3 != 0 {
            return check(image, &guests.ram, &cmdline);
        }
        // A bzImage says itself how long its command line may be.
        let mut bytes = bzimage();
        bytes[CMDLINE_SIZE..CMDLINE_SIZE + 4].copy_from_slice(&u32::from(*choice).to_le_bytes());
        let image = Image::from_bytes("guest", bytes).expect("not empty");
        check(&image, &guests.ram, &cmdline);
    });
}

fn check(image: &Image, ram: &GuestRam, cmdline: &str) {
    let config = BootConfig {
        cmdline,
        ..BootConfig::default()
    };
    match load(image, ram, &config) {
        Ok(loaded) => {
            crate::guest::check_loaded(ram, &config, &loaded);
            assert_eq!(told(ram, &loaded, cmdline.len()), cmdline.as_bytes());
        }
        Err(BootError::CommandLineZero { offset }) => {
            assert_eq!(
                cmdline.as_bytes().iter().position(|byte| *byte == 0),
                Some(offset)
            );
        }
        Err(BootError::CommandLineTooLong { len, limit, .. }) => {
            assert_eq!(len, cmdline.len());
            assert!(len as u64 > limit);
        }
        Err(BootError::NoRoom { .. }) => assert!(cmdline.len() > 4096),
        Err(error) => panic!("{error}"),
    }
}

/// The command line as the guest finds it. Where it is not told a length, a zero byte ends it.
fn told(ram: &GuestRam, loaded: &Loaded, len: usize) -> Vec<u8> {
    let info = loaded.boot_info.expect("all protocols have one");
    let at = match loaded.protocol {
        Protocol::Direct => {
            assert_eq!(read_u64(ram, info + 24), len as u64);
            // An empty one need not lie anywhere.
            return if len == 0 {
                Vec::new()
            } else {
                read(ram, read_u64(ram, info + 16), len)
            };
        }
        Protocol::Pvh => read_u64(ram, info + PVH_CMDLINE),
        _ => read_u32(ram, info + CMD_LINE_PTR).into(),
    };
    let mut bytes = read(ram, at, len + 1);
    assert_eq!(bytes.pop(), Some(0));
    bytes
}
