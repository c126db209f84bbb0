//! `goldcrest inspect`: what an image is.

use std::path::Path;

use goldcrest_boot::{Image, Protocol};

use crate::failure::Failure;
use crate::{print, snapshot};

/// Says what `image` is and how it would be started; fails if it would not.
pub(crate) fn inspect(image: &Path, format: Option<Protocol>) -> Result<u8, Failure> {
    if format.is_none() && snapshot::is_state(image) {
        return snapshot::info(image);
    }
    if format.is_none() && snapshot::archive::is_archive(image) {
        return snapshot::archive::info_without_key(image);
    }
    let inspection = goldcrest_boot::inspect_as(&Image::open(image)?, format)?;
    print(format!("{inspection}").as_bytes())?;
    match inspection.problem {
        None => Ok(0),
        Some(problem) => Err(Failure::asked_wrongly(problem)),
    }
}
