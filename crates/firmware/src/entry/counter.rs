//! Boot counting (Boot Loader Specification, "Boot counting"): `NAME+LEFT-DONE.conf`.

/// How often an entry may be tried, and was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Tries left; 0: the entry is bad.
    pub left: u64,
    /// Tries that failed.
    pub done: u64,
}

/// The name of an entry's file, without its suffix and counter, and the counter. `suffix` is `.conf` or `.efi`; `None` if
/// the name does not end so, in either case, or has nothing before.
pub fn split_counter<'a>(name: &'a str, suffix: &str) -> Option<(&'a str, Option<Counter>)> {
    let at = name.len().checked_sub(suffix.len())?;
    let (stem, end) = name.split_at_checked(at)?;
    if stem.is_empty() || !end.eq_ignore_ascii_case(suffix) {
        return None;
    }
    let counted = stem.rsplit_once('+').and_then(|(name, counter)| {
        let counter = parse(counter)?;
        (!name.is_empty()).then_some((name, Some(counter)))
    });
    Some(counted.unwrap_or((stem, None)))
}

/// `LEFT` or `LEFT-DONE`.
fn parse(text: &str) -> Option<Counter> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (left, done) = match text.split_once('-') {
        Some((left, done)) => (number(left)?, number(done)?),
        None => (number(text)?, 0),
    };
    Some(Counter { left, done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_what_the_specification_says_and_nothing_else() {
        let counted = |left, done| Some(Counter { left, done });
        for (name, expected) in [
            ("a.conf", Some(("a", None))),
            ("a+3.conf", Some(("a", counted(3, 0)))),
            ("a+3-1.CONF", Some(("a", counted(3, 1)))),
            ("a+0-12.conf", Some(("a", counted(0, 12)))),
            ("a+b+2.conf", Some(("a+b", counted(2, 0)))),
            ("6.1+deb.conf", Some(("6.1+deb", None))),
            ("a+-1.conf", Some(("a+-1", None))),
            ("a+1-.conf", Some(("a+1-", None))),
            ("a++1.conf", Some(("a+", counted(1, 0)))),
            ("+1.conf", Some(("+1", None))),
            (
                "a+99999999999999999999.conf",
                Some(("a+99999999999999999999", None)),
            ),
            (".conf", None),
            ("a.efi", None),
            ("é", None),
            ("conf", None),
        ] {
            assert_eq!(split_counter(name, ".conf"), expected, "{name}");
        }
    }
}
