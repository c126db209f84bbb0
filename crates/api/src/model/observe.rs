//! Where logs and metrics go.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// `PUT /logger`: what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// The file or pipe; standard error without.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// The least important lines that are written.
    #[serde(default)]
    pub level: Option<Level>,
    /// Whether lines say how important they are.
    #[serde(default)]
    pub show_level: Option<bool>,
    /// Whether lines say where in the source they come from.
    #[serde(default)]
    pub show_log_origin: Option<bool>,
    /// Lines of modules whose path begins so, and no others; all if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

impl Logger {
    /// This, and what it does not name as it was before.
    #[must_use]
    pub fn over(self, before: Option<Self>) -> Self {
        let before = before.unwrap_or_default();
        Self {
            log_path: self.log_path.or(before.log_path),
            level: self.level.or(before.level),
            show_level: self.show_level.or(before.show_level),
            show_log_origin: self.show_log_origin.or(before.show_log_origin),
            module: self.module.or(before.module),
        }
    }
}

/// How important a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// None is written.
    Off,
    /// Something failed.
    Error,
    /// A person should know.
    Warning,
    /// What happens.
    #[default]
    Info,
    /// In detail.
    Debug,
    /// In every detail.
    Trace,
}

impl<'de> Deserialize<'de> for Level {
    /// Reads its name, in whatever case.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(match name.to_ascii_lowercase().as_str() {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => {
                let names = ["Off", "Error", "Warning", "Info", "Debug", "Trace"];
                return Err(serde::de::Error::custom(format_args!(
                    "{name:?} is no level of a log: choose one of {}",
                    names.join(", ")
                )));
            }
        })
    }
}

/// `PUT /metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The file or pipe that a line of JSON is written to with each flush.
    pub metrics_path: PathBuf,
}
