//! What a monitor says to a page server of its memory, as Firecracker's protocol has it: JSON, a list of ranges.
//!
//! ```
//! use goldcrest_monitor::memory::userfault::ServedRange;
//! use goldcrest_monitor::memory_message;
//!
//! let range = ServedRange { address: 0x7000_0000, len: 0x20_0000, offset: 0 };
//! let message = memory_message::write(&[range])?;
//! assert_eq!(memory_message::read(&message)?, [range]);
//! // An older Firecracker's.
//! let message = br#"[{"base_host_virt_addr":4096,"size":8192,"offset":0,"page_size_kib":4096}]"#;
//! assert_eq!(memory_message::read(message)?[0].address, 4096);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the message goes the descriptor by which pages are asked for
//! ([`Userfault`](goldcrest_memory::userfault::Userfault)). Whether an image can have such ranges is for
//! [`Claim`](goldcrest_memory::userfault::Claim) to say.

use std::io;

use goldcrest_memory::PAGE_SIZE;
use goldcrest_memory::userfault::{Lost, ServedRange};
use serde::{Deserialize, Serialize};

/// The most bytes of a message.
pub const MAX_LEN: usize = 64 << 10;

/// A range of memory.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Region {
    /// Where it is in the monitor.
    base_host_virt_addr: u64,
    /// Bytes.
    size: u64,
    /// Where its bytes are in the memory file.
    offset: u64,
    /// Bytes of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page_size: Option<u64>,
    /// The same, also in bytes: its old name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page_size_kib: Option<u64>,
}

/// The message of memory in these ranges.
///
/// # Errors
///
/// If it cannot be written.
pub fn write(ranges: &[ServedRange]) -> io::Result<Vec<u8>> {
    let regions: Vec<_> = ranges
        .iter()
        .map(|range| Region {
            base_host_virt_addr: range.address,
            size: range.len,
            offset: range.offset,
            page_size: Some(PAGE_SIZE),
            page_size_kib: Some(PAGE_SIZE),
        })
        .collect();
    serde_json::to_vec(&regions).map_err(io::Error::other)
}

/// The ranges of a message.
///
/// # Errors
///
/// [`Lost::Refused`] if it is none, is longer than [`MAX_LEN`], or is of memory with pages of another size than 4096 bytes.
pub fn read(message: &[u8]) -> Result<Vec<ServedRange>, Lost> {
    let refused = |what: String| Lost::Refused(format!("what it says of its memory {what}"));
    if message.len() > MAX_LEN {
        return Err(refused(format!(
            "has {} bytes: at most {MAX_LEN} are possible",
            message.len()
        )));
    }
    // The error's own text has words of the message, of any length and with anything in them.
    let regions: Vec<Region> = serde_json::from_slice(message).map_err(|error| {
        refused(format!(
            "is no list of ranges from line {}, column {} on",
            error.line(),
            error.column()
        ))
    })?;
    regions.iter().map(range).collect()
}

fn range(region: &Region) -> Result<ServedRange, Lost> {
    match (region.page_size, region.page_size_kib) {
        (Some(PAGE_SIZE), None | Some(PAGE_SIZE)) | (None, Some(PAGE_SIZE)) => Ok(ServedRange {
            address: region.base_host_virt_addr,
            len: region.size,
            offset: region.offset,
        }),
        (size, old) => Err(Lost::Refused(format!(
            "its memory has pages of {} bytes: only pages of {PAGE_SIZE} are served",
            size.or(old).unwrap_or(0)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(page: &str) -> Result<Vec<ServedRange>, Lost> {
        let region = r#""base_host_virt_addr":4096,"size":8192,"offset":0"#;
        read(format!("[{{{region}{page}}}]").as_bytes())
    }

    #[test]
    fn pages_of_another_size_are_refused_by_either_name() {
        with(r#","page_size":4096"#).unwrap();
        with(r#","page_size_kib":4096,"more":[]"#).unwrap();
        with(r#","page_size":4096,"page_size_kib":4096"#).unwrap();
        for bad in [
            "",
            r#","page_size":2097152"#,
            r#","page_size":2097152,"page_size_kib":4096"#,
            r#","page_size":4096,"page_size_kib":2097152"#,
        ] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains("only pages of 4096"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_no_list_of_ranges_is_refused() {
        let deep = "[".repeat(MAX_LEN);
        let long = format!("[]{}", " ".repeat(MAX_LEN));
        for bad in ["", "{}", "[{}]", "[[1]]", "[] []", &deep, &long] {
            assert!(read(bad.as_bytes()).is_err());
        }
        assert!(read(b"[]").unwrap().is_empty());
    }

    /// It is shown to who runs the server.
    #[test]
    fn the_reason_has_nothing_of_what_was_said() {
        let name = "\\u001b]0;\\n".repeat(1000);
        let error = read(format!("[\"{name}\"]").as_bytes()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.len() < 100 && !error.contains(char::is_control),
            "{error}"
        );
    }
}
