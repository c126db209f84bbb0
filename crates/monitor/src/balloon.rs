//! Balloons, as a person sets them.

use goldcrest_memory::parse_size;
use goldcrest_virtio_balloon::{Balloon, BalloonConfig, HostPages};

use crate::VirtioConfig;
use crate::options::{OptionError, parts};
use crate::snapshot::Description;

/// A balloon.
pub fn balloon_device(config: BalloonConfig) -> VirtioConfig {
    VirtioConfig::described("balloon", Description::Balloon(config), move || {
        Ok(Balloon::new(HostPages, &config)?)
    })
}

const FORM: &str =
    "[target=SIZE][,deflate-on-oom=on|off][,free-page-reporting=on|off], for example target=64M";

/// Reads `[target=SIZE][,deflate-on-oom=on|off][,free-page-reporting=on|off]`, of which nothing is needed.
///
/// # Errors
///
/// [`OptionError`] if it is something else.
pub fn parse_balloon(text: &str) -> Result<BalloonConfig, OptionError> {
    let refuse = |what: String| OptionError::new(what, FORM);
    let mut config = BalloonConfig::default();
    for part in parts(text).iter().filter(|part| !part.is_empty()) {
        let unknown = || refuse(format!("a balloon has no option {part:?}"));
        let (name, value) = part.split_once('=').ok_or_else(unknown)?;
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(refuse(format!("{name} is on or off, not {value:?}"))),
        };
        match name {
            "target" => {
                config.target = parse_size(value).map_err(|error| refuse(error.to_string()))?;
            }
            "deflate-on-oom" => config.deflate_on_oom = switch()?,
            "free-page-reporting" => config.free_page_reporting = switch()?,
            _ => return Err(unknown()),
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balloons_are_what_their_options_say() {
        assert_eq!(parse_balloon(""), Ok(BalloonConfig::default()));
        let all = "target=64M,deflate-on-oom=off,free-page-reporting=off";
        let config = BalloonConfig {
            target: 64 << 20,
            deflate_on_oom: false,
            free_page_reporting: false,
            ..BalloonConfig::default()
        };
        assert_eq!(parse_balloon(all), Ok(config));
        for (text, word) in [
            ("64M", "no option \"64M\""),
            ("target=much", "much"),
            ("deflate-on-oom=yes", "on or off, not \"yes\""),
            ("size=1", "no option \"size=1\""),
        ] {
            let error = parse_balloon(text).unwrap_err().to_string();
            assert!(
                error.contains(word) && error.contains("; write [target"),
                "{error}"
            );
        }
    }
}
