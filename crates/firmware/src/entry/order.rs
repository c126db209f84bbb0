//! The order of entries (Boot Loader Specification, "Sorting").

use core::cmp::Ordering;

use uapi_version::strverscmp;

use super::{Entry, split_counter};

/// Which of two entries comes first in the menu.
pub fn compare(a: &Entry, b: &Entry) -> Ordering {
    let bad = a.is_bad().cmp(&b.is_bad());
    bad.then_with(|| match (key(&a.sort_key), key(&b.sort_key)) {
        (Some(a_key), Some(b_key)) => a_key
            .cmp(b_key)
            // What is not there compares lower, as `None` does.
            .then_with(|| key(&a.machine_id).cmp(&key(&b.machine_id)))
            .then_with(|| versions(text(&a.version), text(&b.version)).reverse()),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    })
    .then_with(|| versions(stem(&a.id), stem(&b.id)).reverse())
    .then_with(|| done(a).cmp(&done(b)))
}

/// The order of two versions (Version Format Specification).
fn versions(a: &str, b: &str) -> Ordering {
    strverscmp(a, b)
}

/// A value that is set: an empty one is not.
fn key(value: &Option<alloc::string::String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn text(value: &Option<alloc::string::String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The name of the file, without its suffix.
fn stem(id: &str) -> &str {
    [".conf", ".efi"]
        .iter()
        .find_map(|suffix| split_counter(id, suffix))
        .map_or(id, |(stem, _)| stem)
}

fn done(entry: &Entry) -> u64 {
    entry.counter.map_or(0, |counter| counter.done)
}
