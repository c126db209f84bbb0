//! `os-release(5)`: how an operating system presents itself.

use alloc::string::String;
use alloc::vec::Vec;

/// The assignments of an os-release file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease(Vec<(String, String)>);

impl OsRelease {
    /// Reads the file's text. What is not an assignment is passed over.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.starts_with('#'));
        let assignment = |line: &str| {
            let (key, value) = line.split_once('=')?;
            Some((key.into(), unquote(value.trim())))
        };
        Self(lines.filter_map(assignment).collect())
    }

    /// The value of the first of these keys that has one; of keys that come twice, the last counts.
    pub fn first_of(&self, keys: &[&str]) -> Option<&str> {
        let value = |wanted: &&str| {
            let found = self.0.iter().rev().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let mut values = keys.iter().filter_map(value);
        values.find(|value| !value.is_empty())
    }
}

/// A word of the shell, as far as os-release has it: one of both quotes around it, and backslashes.
fn unquote(value: &str) -> String {
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(literal) = quoted('\'') {
        return literal.into();
    }
    let mut chars = quoted('"').unwrap_or(value).chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_of_the_shell() {
        let release = OsRelease::parse(
            "# PRETTY_NAME=no\nPRETTY_NAME=\"Debian \\\"12\\\" \\$\"\nID=debian\nNAME='a\\b'\nVERSION_ID=\nID=newer\njunk\n\"=\"",
        );
        assert_eq!(release.first_of(&["PRETTY_NAME"]), Some("Debian \"12\" $"));
        assert_eq!(release.first_of(&["NAME"]), Some("a\\b"));
        assert_eq!(release.first_of(&["VERSION_ID", "ID"]), Some("newer"));
        assert_eq!(release.first_of(&["BUILD_ID"]), None);
    }
}
