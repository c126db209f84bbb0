//! What can be changed of a machine that runs.

use std::time::Duration;

use super::{Answer, json};
use crate::controller::configure::check_balloon;
use crate::model::{Balloon, BalloonStatistics, DriveUpdate, NetworkInterfaceUpdate, RateLimiter};
use crate::{ApiError, Controller, Machine};

impl<M: Machine> Controller<M> {
    pub(super) fn patch_drive(&mut self, update: DriveUpdate) -> Result<(), ApiError> {
        self.after_start("to change a disk")?;
        let drives = &mut self.config.drives;
        let mut known = drives.iter_mut().enumerate();
        let Some((index, drive)) = known.find(|(_, drive)| drive.drive_id == update.drive_id)
        else {
            return Err(ApiError::refused(format!(
                "there is no drive {:?}",
                update.drive_id
            )));
        };
        let rate = updated(drive.rate_limiter.as_ref(), update.rate_limiter.as_ref());
        self.machine.update_drive(
            index,
            rate.map(|rate| rate.config()),
            update.path_on_host.as_deref(),
        )?;
        drive.rate_limiter = rate.or(drive.rate_limiter);
        drive.path_on_host = update.path_on_host.or(drive.path_on_host.take());
        Ok(())
    }

    pub(super) fn patch_network(&mut self, update: NetworkInterfaceUpdate) -> Result<(), ApiError> {
        self.after_start("to change a network card")?;
        let cards = &mut self.config.network_interfaces;
        let mut known = cards.iter_mut().enumerate();
        let Some((index, card)) = known.find(|(_, card)| card.iface_id == update.iface_id) else {
            return Err(ApiError::refused(format!(
                "there is no network interface {:?}",
                update.iface_id
            )));
        };
        let receive = updated(
            card.rx_rate_limiter.as_ref(),
            update.rx_rate_limiter.as_ref(),
        );
        let send = updated(
            card.tx_rate_limiter.as_ref(),
            update.tx_rate_limiter.as_ref(),
        );
        self.machine.update_network(
            index,
            receive.map(|rate| rate.config()),
            send.map(|rate| rate.config()),
        )?;
        card.rx_rate_limiter = receive.or(card.rx_rate_limiter);
        card.tx_rate_limiter = send.or(card.tx_rate_limiter);
        Ok(())
    }

    /// The balloon as it is configured.
    pub(super) fn balloon_config(&self) -> Result<&Balloon, ApiError> {
        let none = || ApiError::refused("there is no balloon: configure one first (PUT /balloon)");
        self.config.balloon.as_ref().ok_or_else(none)
    }

    pub(super) fn balloon_statistics(&mut self) -> Result<Answer, ApiError> {
        self.after_start("to ask for statistics")?;
        if self.balloon_config()?.stats_polling_interval_s == 0 {
            return Err(ApiError::refused(
                "the balloon has no statistics: its stats_polling_interval_s was 0 at the start",
            ));
        }
        let status = self.machine.balloon()?;
        json(&BalloonStatistics::from(status))
    }

    pub(super) fn patch_balloon(&mut self, amount_mib: u32) -> Result<(), ApiError> {
        self.after_start("to change the balloon")?;
        let balloon = Balloon {
            amount_mib,
            ..self.balloon_config()?.clone()
        };
        check_balloon(&balloon, &self.machine_config())?;
        let target = balloon.config().target;
        self.machine.update_balloon(Some(target), None)?;
        self.config.balloon = Some(balloon);
        Ok(())
    }

    pub(super) fn patch_balloon_statistics(&mut self, seconds: u16) -> Result<(), ApiError> {
        self.after_start("to change the balloon")?;
        let before = self.balloon_config()?.clone();
        if (before.stats_polling_interval_s == 0) != (seconds == 0) {
            return Err(ApiError::refused(
                "statistics cannot be switched on or off after the start: only their interval changes",
            ));
        }
        let interval = Duration::from_secs(seconds.into());
        self.machine.update_balloon(None, Some(interval))?;
        self.config.balloon = Some(Balloon {
            stats_polling_interval_s: seconds,
            ..before
        });
        Ok(())
    }
}

/// What limits become, if they are to change.
fn updated(old: Option<&RateLimiter>, update: Option<&RateLimiter>) -> Option<RateLimiter> {
    let old = old.copied().unwrap_or_default();
    update.map(|update| old.updated(update))
}
