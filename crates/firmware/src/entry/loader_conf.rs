//! `/loader/loader.conf`: which entry is the default, and how long the menu waits (`loader.conf(5)`).

use alloc::borrow::ToOwned;
use alloc::string::String;

/// How long the menu waits for a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timeout {
    /// There is no menu.
    #[default]
    None,
    /// Seconds.
    Seconds(u32),
    /// Until one comes.
    Forever,
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderConf {
    /// A pattern for the identity of the default entry.
    pub default: Option<String>,
    /// How long the menu waits.
    pub timeout: Option<Timeout>,
}

impl LoaderConf {
    /// Reads the file's text. What is not known is passed over; of what comes twice, the last counts.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for (key, value) in super::type1::lines(text) {
            match key {
                // What begins so refers to variables of EFI.
                "default" if !value.starts_with('@') => conf.default = Some(value.to_owned()),
                "timeout" => conf.timeout = Timeout::parse(value).or(conf.timeout),
                _ => {}
            }
        }
        conf
    }
}

impl Timeout {
    /// A number of seconds, or one of the words of `loader.conf(5)`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "menu-force" => Some(Self::Forever),
            "menu-hidden" | "menu-disabled" | "0" => Some(Self::None),
            seconds => seconds.parse().ok().map(Self::Seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_what_is_known_counts() {
        let text = "# comment\ntimeout 3\ndefault  debian-*\nconsole-mode max\ntimeout\t5\ntimeout soon\ndefault @saved";
        let conf = LoaderConf::parse(text);
        assert_eq!(conf.default.as_deref(), Some("debian-*"));
        assert_eq!(conf.timeout, Some(Timeout::Seconds(5)));
        assert_eq!(
            LoaderConf::parse("timeout menu-force").timeout,
            Some(Timeout::Forever)
        );
        assert_eq!(LoaderConf::parse("timeout 0").timeout, Some(Timeout::None));
    }
}
