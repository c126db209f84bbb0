//! Patterns of names: `*`, `?`, `[...]`, as `fnmatch` has them.

/// Whether a name matches a pattern; upper and lower case are the same, as for systemd-boot.
///
/// Takes time in proportion to both lengths multiplied, whatever they are.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: alloc::vec::Vec<char> = pattern.chars().collect();
    let name: alloc::vec::Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last star does not match: one character later.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() || p < pattern.len() {
        let rest = pattern.get(p..).unwrap_or_default();
        let step = match (rest, name.get(n)) {
            (['*', ..], _) => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            (rest, Some(c)) => one(rest, *c),
            (_, None) => None,
        };
        match (step, &mut star) {
            (Some(len), _) => (p, n) = (p + len, n + 1),
            (None, Some((after, from))) if *from < name.len() => {
                *from += 1;
                (p, n) = (*after, *from);
            }
            (None, _) => return false,
        }
    }
    true
}

/// Whether what a pattern begins with matches a character: how many characters of the pattern that is.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => {
            set(rest, c).or_else(|| (c == '[' && !rest.contains(&']')).then_some(1))
        }
        ['\\', literal, ..] => same(*literal, c).then_some(2),
        [literal, ..] => same(*literal, c).then_some(1),
        [] => None,
    }
}

/// A set of characters, behind its bracket.
fn set(pattern: &[char], c: char) -> Option<usize> {
    let (negated, body) = match pattern {
        ['!' | '^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // A bracket that comes first is one of the set.
    let end = 1 + body.iter().skip(1).position(|c| *c == ']')?;
    let mut members = body.get(..end)?;
    let mut contained = false;
    let c = c.to_ascii_lowercase();
    while let [first, rest @ ..] = members {
        let (last, rest) = match rest {
            ['-', last, rest @ ..] => (last, rest),
            rest => (first, rest),
        };
        contained |= (first.to_ascii_lowercase()..=last.to_ascii_lowercase()).contains(&c);
        members = rest;
    }
    let len = 2 + usize::from(negated) + end;
    (contained != negated).then_some(len)
}

fn same(a: char, b: char) -> bool {
    a.eq_ignore_ascii_case(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, name) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("debian-*", "debian-6.1.conf"),
            ("Debian-*.CONF", "debian-6.1.conf"),
            ("*6.1*", "debian-6.1.conf"),
            ("a?c", "abc"),
            ("a[b-d]e", "aDe"),
            ("a[!b]c", "axc"),
            ("a[]]c", "a]c"),
            ("a\\*c", "a*c"),
            ("a[", "a["),
            ("**a**b**", "xaxbx"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("a", ""),
            ("debian", "debian-6.1.conf"),
            ("a[!b]c", "abc"),
            ("a?c", "ac"),
            ("*.conf", "a.efi"),
            ("a[b-d]e", "ae"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(2000);
        let name = "a".repeat(1999);
        assert!(!matches(&pattern, &name));
    }
}
