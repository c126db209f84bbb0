//! What a person sets.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::{MemoryError, PAGE_SIZE, layout};

/// How much RAM, and made of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// Bytes: a multiple of 4 KiB, at least 1 MiB, at most [`layout::MAX_SIZE`].
    pub size: u64,
    /// What backs it.
    pub backing: Backing,
    /// Whether huge pages are used.
    pub huge_pages: HugePages,
    /// Takes all pages from the host before the guest starts.
    pub prefault: bool,
}

impl Default for MemoryConfig {
    /// 128 MiB, anonymous, small pages, touched by use.
    fn default() -> Self {
        Self {
            size: 128 << 20,
            backing: Backing::Anonymous,
            huge_pages: HugePages::None,
            prefault: false,
        }
    }
}

/// What RAM is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Memory of this process alone.
    Anonymous,
    /// A memfd, which another process can map too. Images are copied into it, not mapped.
    Memfd,
}

/// Use of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Small pages.
    None,
    /// The kernel may use huge pages (`madvise`).
    Transparent,
    /// 2 MiB pages from the host's reserved pool; the size must be a multiple of 2 MiB. Images are copied.
    TwoMiB,
}

/// Smallest RAM: the first MiB holds what the boot protocols put there.
const MIN_SIZE: u64 = 1 << 20;

impl MemoryConfig {
    /// Checks the size.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Size`] with the limit that is violated.
    pub fn validate(&self) -> Result<(), MemoryError> {
        let refuse = |limit| {
            Err(MemoryError::Size {
                size: self.size,
                limit,
            })
        };
        if self.size < MIN_SIZE {
            return refuse("at least 1 MiB is needed");
        }
        if self.size > layout::MAX_SIZE {
            return refuse("at most 4 TiB are possible");
        }
        if !self.size.is_multiple_of(PAGE_SIZE) {
            return refuse("must be a multiple of 4 KiB");
        }
        if self.huge_pages == HugePages::TwoMiB && !self.size.is_multiple_of(2 << 20) {
            return refuse("must be a multiple of 2 MiB for 2 MiB pages");
        }
        Ok(())
    }
}

/// Parses a size as people write it: `128M`, `2G`, `512MiB`, or a number of bytes. `K`, `M`, `G` and `T` count in
/// powers of 1024.
///
/// # Errors
///
/// [`MemoryError::Parse`] if it is not a size.
pub fn parse_size(text: &str) -> Result<u64, MemoryError> {
    let trimmed = text.trim();
    // The crate takes "M" for 10^6 and "Mi" for 2^20; of a machine's memory nobody means the former.
    let binary = match trimmed.char_indices().last() {
        Some((_, 'k' | 'K' | 'm' | 'M' | 'g' | 'G' | 't' | 'T' | 'p' | 'P')) => {
            format!("{trimmed}iB")
        }
        _ => trimmed.to_owned(),
    };
    binary
        .parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| MemoryError::Parse(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, size) in [
            ("128M", 128 << 20),
            ("2G", 2 << 30),
            ("2g", 2 << 30),
            ("512MiB", 512 << 20),
            ("1.5G", 3 << 29),
            ("64k", 64 << 10),
            ("4096", 4096),
            ("1P", 1 << 50),
            (" 1T ", 1 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in ["", "M", "12X", "-1M", "1 2", "0x10", "1e3"] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn sizes_are_checked() {
        let check = |size| {
            MemoryConfig {
                size,
                ..MemoryConfig::default()
            }
            .validate()
        };
        assert!(check(1 << 20).is_ok());
        assert!(check(layout::MAX_SIZE).is_ok());
        for size in [0, 1, 4096, (1 << 20) + 1, layout::MAX_SIZE + 4096, 1 << 50] {
            assert!(check(size).is_err(), "{size}");
        }
    }
}
