//! The virtio transport: a driver that misbehaves, a device that echoes, and memory that changes while it works.

use goldcrest_device_fuzz::HostileDriver;
use goldcrest_virtio::Mmio;

use crate::echo::Echo;
use crate::saved;

/// Runs the target: a byte for the device's manner, the others for the driver.
pub fn run(data: &[u8]) {
    let Some((manner, data)) = data.split_first() else {
        return;
    };
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let interference = driver.interference();
    driver.run(|memory, line| {
        let interference = interference.clone();
        let echo = Echo {
            holds: manner & 1 != 0,
            changes: manner & 2 != 0,
            hook: Some(Box::new(move || interference.strike())),
            ..Echo::default()
        };
        Mmio::new(echo, memory, line)
    });
}
