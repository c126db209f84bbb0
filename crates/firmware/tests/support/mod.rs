//! Images made by real tools.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests, not all of which use all of it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use goldcrest_firmware::{Disk, MemoryDisk};
use tempfile::TempDir;

/// A folder for images.
pub struct Workshop(TempDir);

impl Workshop {
    /// `None`, and a line that says why, if one of these tools is missing.
    pub fn with(tools: &[&str]) -> Option<Self> {
        for tool in tools {
            let found = folders().any(|folder| folder.join(tool).exists());
            if !found {
                eprintln!("skipped: {tool} is not installed");
                return None;
            }
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the folders that it is in.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// An image of `kib` KiB, all zeros.
    pub fn image(&self, name: &str, kib: u64) -> PathBuf {
        let path = self.path(name);
        let file = fs::File::create(&path).unwrap();
        file.set_len(kib << 10).unwrap();
        path
    }

    /// Runs a tool in the folder; it has to succeed.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let folder = folders().find(|folder| folder.join(tool).exists());
        let mut command = Command::new(folder.unwrap().join(tool));
        command.args(arguments).current_dir(self.0.path());
        // mtools is strict about sizes that it does not know from floppy disks.
        command.env("MTOOLS_SKIP_CHECK", "1");
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{tool} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The image as the disk `vda`.
    pub fn disk(&self, name: &str) -> Disk {
        MemoryDisk::new(self.bytes(name)).into_disk("vda")
    }

    /// Puts an image into another one.
    pub fn put(&self, part: &str, image: &str, offset: usize) {
        let mut bytes = self.bytes(image);
        let part = self.bytes(part);
        bytes[offset..offset + part.len()].copy_from_slice(&part);
        fs::write(self.path(image), bytes).unwrap();
    }
}

fn folders() -> impl Iterator<Item = PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).to_path_buf())
}

/// Bytes that are not the same anywhere.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect()
}

/// What begins like a bzImage, with a 64-bit entry point, and needs 4 MiB.
pub fn kernel(len: usize) -> Vec<u8> {
    let mut kernel = noise(len, 7);
    kernel[..0x290].fill(0);
    kernel[0x1f1] = 1;
    kernel[0x201] = 0x6a;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    kernel[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    kernel[0x234] = 1;
    kernel[0x236] = 0x3f;
    kernel[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
    kernel[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    kernel[0x260..0x264].copy_from_slice(&0x40_0000_u32.to_le_bytes());
    kernel
}

/// An empty FAT12 file system of 64 KiB, made by no tool.
pub fn small_fat() -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    // 512 bytes a sector, one a cluster, one reserved, one table of one sector, 16 entries in the root, 128 sectors.
    bytes[11..24].copy_from_slice(&[0, 2, 1, 1, 0, 1, 16, 0, 128, 0, 0xf8, 1, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}
