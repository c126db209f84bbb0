//! The document, and who may read what of it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use crate::config::MmdsConfig;
use crate::error::MmdsError;
use crate::token::Authority;

/// A metadata service: a JSON document, put and patched by the host, read by the guest.
///
/// It is shared by those who change it and by the network cards that it is served on.
pub struct Mmds {
    state: Mutex<State>,
    pub(crate) authority: Authority,
}

#[derive(Debug, Clone)]
struct State {
    config: MmdsConfig,
    /// None before it is first put.
    data: Option<Value>,
}

/// As what a part of the document is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// As the metadata service of Amazon's EC2 does: a string as it is, of an object its keys.
    Imds,
}

/// Why a part of the document cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untold {
    /// There is none at that path.
    Missing,
    /// Text has no form for it.
    Type,
}

impl Mmds {
    /// A service without a document.
    ///
    /// # Errors
    ///
    /// [`MmdsError`] if the configuration cannot be, or the host has no random numbers.
    pub fn new(config: MmdsConfig) -> Result<Self, MmdsError> {
        Self::with_authority(config, Authority::new()?)
    }

    /// A service whose tokens are signed with this key: for tests and fuzzers.
    ///
    /// # Errors
    ///
    /// [`MmdsError`] if the configuration cannot be.
    pub fn with_key(config: MmdsConfig, key: [u8; 64]) -> Result<Self, MmdsError> {
        Self::with_authority(config, Authority::with_key(key))
    }

    fn with_authority(config: MmdsConfig, authority: Authority) -> Result<Self, MmdsError> {
        config.check()?;
        let state = State { config, data: None };
        Ok(Self {
            state: Mutex::new(state),
            authority,
        })
    }

    /// How it answers.
    pub fn config(&self) -> MmdsConfig {
        self.lock().config
    }

    /// Has it answer otherwise, from the next request on. Cards that are there keep the address.
    ///
    /// # Errors
    ///
    /// [`MmdsError`] if the configuration cannot be, or the document is longer than its limit; then nothing changes.
    pub fn set_config(&self, config: MmdsConfig) -> Result<(), MmdsError> {
        config.check()?;
        let mut state = self.lock();
        if let Some(data) = &state.data {
            check_length(data, config.limit)?;
        }
        state.config = config;
        Ok(())
    }

    /// Replaces the document.
    ///
    /// # Errors
    ///
    /// [`MmdsError::TooLarge`] if it is longer than the limit; then the old one stays.
    pub fn put(&self, data: Value) -> Result<(), MmdsError> {
        let mut state = self.lock();
        check_length(&data, state.config.limit)?;
        state.data = Some(data);
        Ok(())
    }

    /// Changes parts of the document by a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    ///
    /// [`MmdsError::Empty`] if there is no document, [`MmdsError::TooLarge`] if it would be longer than the limit; then
    /// nothing changes.
    pub fn patch(&self, patch: &Value) -> Result<(), MmdsError> {
        let mut state = self.lock();
        let mut data = state.data.clone().ok_or(MmdsError::Empty)?;
        merge(&mut data, patch);
        check_length(&data, state.config.limit)?;
        state.data = Some(data);
        Ok(())
    }

    /// The document; an empty object if none was put.
    pub fn get(&self) -> Value {
        let data = self.lock().data.clone();
        data.unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Whether a document was put.
    pub fn has_data(&self) -> bool {
        self.lock().data.is_some()
    }

    /// The part of the document at a path.
    pub(crate) fn tell(&self, path: &str, format: Format) -> Result<String, Untold> {
        let state = self.lock();
        let data = state.data.as_ref().ok_or(Untold::Missing)?;
        let value = data.pointer(&pointer(path)).ok_or(Untold::Missing)?;
        match format {
            Format::Json => Ok(value.to_string()),
            Format::Imds => imds(value).ok_or(Untold::Type),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by whoever panicked with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mmds {
    /// Without the document, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmds")
            .field("config", &self.config())
            .finish_non_exhaustive()
    }
}

fn check_length(data: &Value, limit: usize) -> Result<(), MmdsError> {
    let len = data.to_string().len();
    if len > limit {
        return Err(MmdsError::TooLarge { len, limit });
    }
    Ok(())
}

/// Merges a patch into a document (RFC 7396 §2).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The JSON pointer (RFC 6901) that a path of a URI stands for: empty segments do not count.
pub(crate) fn pointer(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.fold(String::new(), |pointer, segment| pointer + "/" + segment)
}

/// A string as it is; of an object its keys, one on a line, those of objects with a slash.
fn imds(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(members) => {
            let line = |(name, value): (&String, &Value)| match value {
                Value::Object(_) => format!("{name}/"),
                _ => name.clone(),
            };
            Some(members.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Mmds {
        let mmds = Mmds::with_key(MmdsConfig::default(), [1; 64]).unwrap();
        let data = json!({
            "latest": { "meta-data": { "ami-id": "ami-1", "tags": ["a", "b"], "network": {} }, "count": 3 }
        });
        mmds.put(data).unwrap();
        mmds
    }

    #[test]
    fn the_examples_of_rfc_7396_come_out_as_they_should() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} and {patch}");
        }
    }

    #[test]
    fn a_path_leads_to_a_part_in_either_format() {
        let mmds = service();
        for (path, json, imds) in [
            ("/latest/meta-data/ami-id", r#""ami-1""#, Ok("ami-1")),
            (
                "/latest/meta-data",
                r#"{"ami-id":"ami-1","network":{},"tags":["a","b"]}"#,
                Ok("ami-id\nnetwork/\ntags"),
            ),
            ("//latest///meta-data//ami-id/", r#""ami-1""#, Ok("ami-1")),
            ("/latest/meta-data/tags/1", r#""b""#, Ok("b")),
            ("/latest/meta-data/network/", "{}", Ok("")),
            ("/latest/count", "3", Err(Untold::Type)),
            ("/latest/meta-data/tags", r#"["a","b"]"#, Err(Untold::Type)),
        ] {
            assert_eq!(mmds.tell(path, Format::Json).as_deref(), Ok(json), "{path}");
            let told = mmds.tell(path, Format::Imds);
            assert_eq!(told.as_deref(), imds.as_deref(), "{path}");
        }
        assert_eq!(mmds.tell("/", Format::Imds).as_deref(), Ok("latest/"));
        for path in [
            "/Latest",
            "/latest/meta-data/tags/2",
            "/latest/meta-data/tags/-1",
            "/latest/count/0",
        ] {
            assert_eq!(mmds.tell(path, Format::Json), Err(Untold::Missing));
        }
    }

    #[test]
    fn what_is_too_long_changes_nothing() {
        let mmds = service();
        let before = mmds.get();
        let long = "x".repeat(60_000);
        let error = mmds.put(json!({ "a": long })).unwrap_err().to_string();
        assert_eq!(error, "metadata of 60008 bytes: the limit is 51200");
        assert!(mmds.patch(&json!({ "a": long })).is_err());
        let small = MmdsConfig {
            limit: 10,
            ..MmdsConfig::default()
        };
        assert!(mmds.set_config(small).is_err());
        assert_eq!((mmds.get(), mmds.config()), (before, MmdsConfig::default()));
        // As long as is allowed, and one byte more.
        let string = |len: usize| Value::String("x".repeat(len - 2));
        mmds.put(string(51_200)).unwrap();
        assert!(mmds.put(string(51_201)).is_err());
    }

    #[test]
    fn nothing_is_read_or_patched_before_something_is_put() {
        let mmds = Mmds::new(MmdsConfig::default()).unwrap();
        assert_eq!((mmds.get(), mmds.has_data()), (json!({}), false));
        assert_eq!(mmds.tell("/", Format::Json), Err(Untold::Missing));
        assert!(matches!(mmds.patch(&json!({})), Err(MmdsError::Empty)));
        mmds.put(json!({})).unwrap();
        mmds.patch(&json!({"a": "b"})).unwrap();
        assert_eq!((mmds.get(), mmds.has_data()), (json!({"a": "b"}), true));
    }
}
