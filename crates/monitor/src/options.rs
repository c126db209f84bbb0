//! Device options as people write them: `PATH[,word][,key=value]`.

use std::fmt;

/// What is wrong with the text of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    what: String,
    form: &'static str,
}

impl OptionError {
    pub(crate) fn new(what: impl Into<String>, form: &'static str) -> Self {
        Self {
            what: what.into(),
            form,
        }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write {}", self.what, self.form)
    }
}

impl std::error::Error for OptionError {}

/// The parts of an option between its commas; two commas are one that belongs to a part.
pub(crate) fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(char);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn commas_separate_and_double_ones_do_not() {
        assert_eq!(parts("a,b=c,,d"), ["a", "b=c,d"]);
        assert_eq!(parts(""), [""]);
        assert_eq!(parts(",,,x"), [",", "x"]);
        assert_eq!(parts("a,"), ["a", ""]);
    }
}
