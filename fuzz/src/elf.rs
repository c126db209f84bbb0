//! Any bytes as an ELF image: headers, notes and segments. The last two bytes choose how it is loaded.

/// Runs the target.
pub fn run(data: &[u8]) {
    crate::guest::load_with_trailer(data);
}
