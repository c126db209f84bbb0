//! The page behind the image.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::{Page, file_len};
use crate::MemoryError;

const MAGIC: [u8; 8] = *b"GCMEMORY";
const VERSION: u32 = 1;
/// Bytes that have a meaning, without the checksum.
const LEN: usize = 40;

/// Tells one image from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageId(pub [u8; 16]);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The trailer of an image of `size` bytes.
pub(super) fn trailer(id: ImageId, size: u64) -> Page {
    let mut fields = Vec::with_capacity(LEN + 4);
    fields.extend(MAGIC);
    fields.extend(VERSION.to_le_bytes());
    fields.extend([0; 4]);
    fields.extend(id.0);
    fields.extend(size.to_le_bytes());
    fields.extend(crc32fast::hash(&fields).to_le_bytes());
    let mut page = [0; size_of::<Page>()];
    for (to, from) in page.iter_mut().zip(fields) {
        *to = from;
    }
    page
}

/// Looks whether `file` is the image of `size` bytes of RAM with this identity, by its length and its trailer.
///
/// # Errors
///
/// [`MemoryError::NotTheImage`] if it is not, [`MemoryError::Image`] if it cannot be read.
pub fn check(file: &File, size: u64, id: ImageId) -> Result<(), MemoryError> {
    let image_error = |source| MemoryError::Image {
        what: "read",
        source,
    };
    let len = file.metadata().map_err(image_error)?.len();
    if len != file_len(size) {
        return Err(MemoryError::NotTheImage(format!(
            "has {len} bytes, {} are needed",
            file_len(size)
        )));
    }
    let mut page: Page = [0; size_of::<Page>()];
    file.read_exact_at(&mut page, size).map_err(image_error)?;
    if page == trailer(id, size) {
        return Ok(());
    }
    let what = match (page.first_chunk::<8>(), other_id(&page)) {
        (Some(magic), _) if *magic != MAGIC => "does not end in GCMEMORY".to_owned(),
        (_, Some(other)) if other != id => {
            format!("belongs to another state: its identity is {other}, {id} is wanted")
        }
        _ => "is damaged: its trailer is not what was written".to_owned(),
    };
    Err(MemoryError::NotTheImage(what))
}

fn other_id(page: &Page) -> Option<ImageId> {
    let id = page.get(16..)?.first_chunk::<16>()?;
    Some(ImageId(*id))
}

/// Writes the trailer.
pub(super) fn write(file: &File, size: u64, id: ImageId) -> io::Result<()> {
    file.write_all_at(&trailer(id, size), size)
}
