//! Any bytes as an ELF image with Hermit's notes: headers, notes, segments, relocations. The last byte chooses how it is
//! loaded.

use goldcrest_boot::Hardware;

/// Runs the target.
pub fn run(data: &[u8]) {
    crate::guest::load_alone(data, |_| Hardware::default());
}
