//! RAM that is again what an image has.

use std::fs::File;
use std::sync::Arc;

use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryRegion;

use super::GuestRam;
use crate::image::Layers;
use crate::{MemoryError, mapping};

impl GuestRam {
    /// Has RAM that was made by [`from_image`](Self::from_image) be as it was then: pages that the guest wrote are given
    /// back, pages that the image does not have are zeros, and ranges that are no longer mapped from it
    /// ([`discard`](crate::discard)) are again. `file` is the same image; [`revert_to`](Self::revert_to) is for RAM that was
    /// made from several.
    ///
    /// Nobody may use RAM meanwhile, and the hypervisor may know what page tables in it had
    /// (`goldcrest_vcpu::Vm::forget_translations`).
    ///
    /// # Errors
    ///
    /// [`MemoryError::Image`] if the file cannot be mapped or read, [`MemoryError::Host`] if the host does not take pages
    /// back. RAM is undefined then.
    pub fn revert(&self, file: &Arc<File>) -> Result<(), MemoryError> {
        self.revert_to(&Layers::new(file.clone(), self.size))
    }

    /// As [`revert`](Self::revert), of RAM that was made by [`from_layers`](Self::from_layers) from the same `layers`.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn revert_to(&self, layers: &Layers) -> Result<(), MemoryError> {
        let file = layers.base();
        if !self.mappable {
            self.advise("give back", self.emptying())?;
        }
        let mut offset = 0;
        for region in self.regions() {
            let reverted = match self.mappable {
                // One call that gives back, and maps what `discard` may have replaced.
                true => {
                    mapping::map_file_over(&self.slice(region.start, region.len)?, file, offset)
                }
                false => self.load_image(region, file, offset),
            };
            reverted.map_err(|source| MemoryError::Image {
                what: "map",
                source,
            })?;
            offset += region.len;
        }
        self.lay_over(layers, false)
    }

    /// The advice that leaves zeros.
    fn emptying(&self) -> libc::c_int {
        let shared = self
            .memory
            .iter()
            .any(|region| region.file_offset().is_some());
        match shared {
            true => libc::MADV_REMOVE,
            false => libc::MADV_DONTNEED,
        }
    }
}
