//! The metadata that a guest finds at an address of its network cards.

use std::sync::Arc;

use goldcrest_monitor::{Mmds, MmdsConfig, MmdsError};
use serde_json::Value;

use crate::model::{MmdsConfiguration, VmConfiguration};
use crate::{ApiError, Controller, Machine};

/// The service, which is there from when it is first needed.
#[derive(Default)]
pub(crate) struct Metadata {
    service: Option<Arc<Mmds>>,
    /// A card has it.
    served: bool,
}

impl Metadata {
    /// The service for the cards that are to have it.
    pub(super) fn service(&mut self) -> Result<Option<Arc<Mmds>>, MmdsError> {
        match self.served {
            true => self.made().cloned().map(Some),
            false => Ok(None),
        }
    }

    pub(super) fn get(&self) -> Value {
        let none = || Value::Object(Default::default());
        self.service.as_ref().map_or_else(none, |mmds| mmds.get())
    }

    pub(super) fn put(&mut self, contents: Value) -> Result<(), MmdsError> {
        self.made()?.put(contents)
    }

    pub(super) fn patch(&mut self, patch: &Value) -> Result<(), MmdsError> {
        self.made()?.patch(patch)
    }

    pub(super) fn limit(&mut self, bytes: usize) -> Result<(), MmdsError> {
        let mmds = self.made()?;
        mmds.set_config(MmdsConfig {
            limit: bytes,
            ..mmds.config()
        })
    }

    fn made(&mut self) -> Result<&Arc<Mmds>, MmdsError> {
        match &mut self.service {
            Some(service) => Ok(service),
            none => Ok(none.insert(Arc::new(Mmds::new(MmdsConfig::default())?))),
        }
    }
}

impl<M: Machine> Controller<M> {
    /// Makes a machine that has a metadata service if it had one when it was saved. If it cannot be made, the service is
    /// set as before.
    pub(super) fn with_metadata(
        &mut self,
        make: impl FnOnce(&mut M, &Arc<Mmds>) -> Result<VmConfiguration, ApiError>,
    ) -> Result<VmConfiguration, ApiError> {
        let mmds = self.metadata.made()?.clone();
        let before = mmds.config();
        match make(&mut self.machine, &mmds) {
            Ok(config) => {
                self.metadata.served = config.mmds_config.is_some();
                Ok(config)
            }
            Err(error) => {
                mmds.set_config(before)?;
                Err(error)
            }
        }
    }

    pub(super) fn set_metadata(&mut self, config: MmdsConfiguration) -> Result<(), ApiError> {
        self.before_start("to choose who finds metadata")?;
        let cards = &self.config.network_interfaces;
        let is_known = |id: &&String| cards.iter().any(|card| card.iface_id == **id);
        if let Some(id) = config.network_interfaces.iter().find(|id| !is_known(id)) {
            return Err(ApiError::refused(format!(
                "there is no network interface {id:?}: configure it first (PUT /network-interfaces)"
            )));
        }
        if config.network_interfaces.is_empty() {
            return Err(ApiError::refused(
                "network_interfaces names none: the guest would find no metadata",
            ));
        }
        let mmds = self.metadata.made()?;
        mmds.set_config(config.config(mmds.config()))?;
        self.metadata.served = true;
        self.config.mmds_config = Some(config);
        Ok(())
    }
}
