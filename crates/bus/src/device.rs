//! What a device is to the bus.

use std::io;
use std::sync::{Arc, Mutex};

/// A device as the bus sees it: registers at offsets from the start of its range.
///
/// `data` is 1 to 8 bytes long, little-endian, and lies wholly inside the device's range.
pub trait Device: Send {
    /// Reads registers into `data`, which comes as all ones: what a register that does not exist reads as, unless the
    /// device's specification says otherwise.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` to registers.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}

/// What the machine must do because of a write.
#[derive(Debug)]
#[must_use = "a device may ask the machine to end"]
pub enum Effect {
    /// Nothing.
    None,
    /// The guest powered the machine off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest ended with a status, 0 meaning success.
    Exit(u32),
    /// The host side of the device failed (a full disk, a closed pipe) in a way that would lose the guest's data.
    HostFailed(io::Error),
    /// The guest did what the device has no answer to, such as naming memory that it does not have; what it was. It cannot
    /// go on.
    Violation(String),
}

/// A device that several buses, ranges or threads share.
pub type SharedDevice = Arc<Mutex<dyn Device>>;

/// Wraps a device for [`Bus::add`](crate::Bus::add).
pub fn shared<D: Device + 'static>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}
