//! `goldcrest inspect`: what an image is.

use std::path::Path;

use goldcrest_boot::Image;

use crate::failure::Failure;
use crate::print;

/// Says what `image` is and how it would be started.
pub(crate) fn inspect(image: &Path) -> Result<u8, Failure> {
    let inspection = goldcrest_boot::inspect(&Image::open(image)?)?;
    print(format!("{inspection}").as_bytes())
}
