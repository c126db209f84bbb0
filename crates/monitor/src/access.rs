//! The host's side of devices of a machine that runs: what can be asked of them and changed.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_balloon::{Balloon, BalloonError, BalloonStatus, HostPages};
use goldcrest_virtio_blk::{Block, DiskError};
use goldcrest_virtio_net::{Net, NetBackend};

use crate::Control;
use crate::disk::Noticing;
use crate::snapshot::Description;

/// Why a device is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceAccessError {
    /// There is no such device, or the machine has ended.
    #[error("the machine has no {kind} at place {index} of its virtio devices")]
    Missing {
        /// What was looked for.
        kind: &'static str,
        /// Where, among all virtio devices.
        index: usize,
    },
    /// A keyboard has no room for more keys.
    #[error("the guest does not read its keyboard: there is no room for more keys")]
    Keyboard,
    /// A disk cannot be in that file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A balloon cannot have that size.
    #[error(transparent)]
    Balloon(#[from] BalloonError),
}

/// Devices are named by their place in [`MachineConfig::virtio`](crate::MachineConfig::virtio).
impl Control {
    /// Gives a disk another limit, with a full burst.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError::Missing`].
    pub fn set_disk_rate(&self, index: usize, rate: RateConfig) -> Result<(), DeviceAccessError> {
        self.access("disk", index, |disk: &mut Block<Noticing>| {
            disk.set_rate(rate);
        })?;
        self.revise(index, |description| {
            if let Description::Disk { config, .. } = description {
                config.rate = Some(rate);
            }
        });
        Ok(())
    }

    /// Puts another file in the place of a disk's, or looks again how large the disk's own is. The guest is told of the size.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError`].
    pub fn set_disk_file(&self, index: usize, path: &Path) -> Result<(), DeviceAccessError> {
        self.access("disk", index, |disk: &mut Block<Noticing>| {
            match disk.backend().is_in(path) {
                true => disk.backend_mut().refresh().map(|()| disk.resize()),
                false => {
                    let next = disk.backend().in_file(path)?;
                    disk.set_backend(next)
                }
            }
        })??;
        self.revise(index, |description| {
            if let Description::Disk { config, .. } = description {
                config.path = path.to_owned();
            }
        });
        Ok(())
    }

    /// Gives a network card other limits, of what it receives and of what it sends, with full bursts.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError::Missing`].
    pub fn set_network_rates(
        &self,
        index: usize,
        receive: Option<RateConfig>,
        send: Option<RateConfig>,
    ) -> Result<(), DeviceAccessError> {
        self.access(
            "network card",
            index,
            |card: &mut Net<Box<dyn NetBackend>>| {
                card.set_rates(receive, send);
            },
        )?;
        self.revise(index, |description| {
            if let Description::Net { config, .. } = description {
                config.rx_rate = receive.unwrap_or(config.rx_rate);
                config.tx_rate = send.unwrap_or(config.tx_rate);
            }
        });
        Ok(())
    }

    /// The guest is to put so many bytes of its memory into a balloon.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError`].
    pub fn set_balloon_target(&self, index: usize, bytes: u64) -> Result<(), DeviceAccessError> {
        self.access("balloon", index, |balloon: &mut Balloon<HostPages>| {
            balloon.set_target(bytes)
        })??;
        self.revise(index, |description| {
            if let Description::Balloon(config) = description {
                config.target = bytes;
            }
        });
        Ok(())
    }

    /// Presses and releases Ctrl, Alt and Del on the guest's keyboard.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError::Keyboard`] if the guest does not read what it types, or there is no machine.
    pub fn press_ctrl_alt_del(&self) -> Result<(), DeviceAccessError> {
        let pressed = self.board().is_some_and(|board| {
            let mut keyboard = board.i8042.lock().unwrap_or_else(PoisonError::into_inner);
            keyboard.press_ctrl_alt_del()
        });
        match pressed {
            true => Ok(()),
            false => Err(DeviceAccessError::Keyboard),
        }
    }

    /// Asks a guest for statistics of its memory so often, through its balloon.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError::Missing`].
    pub fn set_statistics_interval(
        &self,
        index: usize,
        interval: Duration,
    ) -> Result<(), DeviceAccessError> {
        self.access("balloon", index, |balloon: &mut Balloon<HostPages>| {
            balloon.set_statistics_interval(interval);
        })?;
        self.revise(index, |description| {
            if let Description::Balloon(config) = description {
                // Whether there are any has been told to the guest.
                config.statistics = config.statistics.map(|_| interval);
            }
        });
        Ok(())
    }

    /// What a balloon is and has done.
    ///
    /// # Errors
    ///
    /// [`DeviceAccessError::Missing`].
    pub fn balloon_status(&self, index: usize) -> Result<BalloonStatus, DeviceAccessError> {
        self.access("balloon", index, |balloon: &mut Balloon<HostPages>| {
            balloon.status()
        })
    }

    fn access<D: 'static, T>(
        &self,
        kind: &'static str,
        index: usize,
        work: impl FnOnce(&mut D) -> T,
    ) -> Result<T, DeviceAccessError> {
        let board = self.board();
        let device = board.as_ref().and_then(|board| board.virtio.get(index));
        device
            .and_then(|device| device.slot.access(work))
            .ok_or(DeviceAccessError::Missing { kind, index })
    }

    /// What a snapshot says of the device changes, too.
    fn revise(&self, index: usize, change: impl FnOnce(&mut Description)) {
        let board = self.board();
        if let Some(device) = board.as_ref().and_then(|board| board.virtio.get(index)) {
            device.revise(change);
        }
    }
}
