//! The firmware's own command line.
//!
//! | word | |
//! |---|---|
//! | `firmware.entry=ID` | starts this entry, without a menu; `ID` may be a pattern |
//! | `firmware.timeout=SECONDS` | how long the menu waits; 0 shows none, `menu-force` waits until a key is pressed |
//! | `firmware.list` | prints the entries, and ends |
//! | `firmware.time` | says how long it took |
//!
//! All other words are appended to the command line of the kernel.

use alloc::borrow::ToOwned;
use alloc::string::String;

use crate::entry::Timeout;

/// What begins so is for the firmware.
const PREFIX: &str = "firmware.";

/// What the firmware is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// A pattern for the identity of the entry to start.
    pub entry: Option<String>,
    /// How long the menu waits, whatever the disk says.
    pub timeout: Option<Timeout>,
    /// Only print the entries.
    pub list: bool,
    /// Say how long it took.
    pub time: bool,
    /// For the kernel.
    pub kernel: String,
}

impl Words {
    /// Reads a command line, without the words that `is_announcement` says are for others.
    ///
    /// # Errors
    ///
    /// The word that is the firmware's and not known.
    pub fn parse(
        command_line: &str,
        is_announcement: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let mut words = Self::default();
        for word in command_line.split_ascii_whitespace() {
            if is_announcement(word) {
                continue;
            }
            let Some(own) = word.strip_prefix(PREFIX) else {
                if !words.kernel.is_empty() {
                    words.kernel.push(' ');
                }
                words.kernel.push_str(word);
                continue;
            };
            let unknown = || word.to_owned();
            match own.split_once('=') {
                Some(("entry", id)) if !id.is_empty() => words.entry = Some(id.to_owned()),
                Some(("timeout", text)) => {
                    words.timeout = Some(Timeout::parse(text).ok_or_else(unknown)?);
                }
                None if own == "list" => words.list = true,
                None if own == "time" => words.time = true,
                _ => return Err(unknown()),
            }
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Words, String> {
        Words::parse(text, |word| word.starts_with("virtio_mmio.device="))
    }

    #[test]
    fn the_firmwares_words_are_taken_out() {
        let words = parse(
            "quiet virtio_mmio.device=4K@0xd0000000:5 firmware.entry=debian-*  x=\"a b\" firmware.timeout=3 firmware.time",
        );
        let words = words.expect("all words are known");
        assert_eq!(words.kernel, "quiet x=\"a b\"");
        assert_eq!(words.entry.as_deref(), Some("debian-*"));
        assert_eq!(words.timeout, Some(Timeout::Seconds(3)));
        assert!(words.time && !words.list);
        assert_eq!(parse("").expect("nothing is fine"), Words::default());
    }

    #[test]
    fn words_that_are_not_known_are_named() {
        for word in [
            "firmware.entry",
            "firmware.entry=",
            "firmware.timeout=x",
            "firmware.x",
            "firmware.list=1",
        ] {
            assert_eq!(parse(word), Err(word.to_owned()));
        }
    }
}
