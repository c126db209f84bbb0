//! Sockets between guest and host, as a person sets them.

use std::path::PathBuf;

use goldcrest_virtio_vsock::VsockConfig;

use crate::VirtioConfig;
use crate::options::{OptionError, parts};
use crate::snapshot::Description;

/// Sockets of the guest's, with Unix sockets on the host.
pub fn vsock_device(config: VsockConfig) -> VirtioConfig {
    let name = format!("vsock {}", config.path.display());
    let description = Description::Vsock((&config).into());
    VirtioConfig::described(name, description, move || Ok(config.build()?))
}

const FORM: &str = "cid=N,uds=PATH[,streams=N], for example cid=3,uds=/run/guest.sock";

/// Reads `cid=N,uds=PATH[,streams=N]`; a comma in the path is written twice.
///
/// # Errors
///
/// [`OptionError`] if it is something else, or cannot be.
pub fn parse_vsock(text: &str) -> Result<VsockConfig, OptionError> {
    let refuse = |what: String| OptionError::new(what, FORM);
    let (mut cid, mut path, mut streams) = (None, None, None);
    for part in parts(text) {
        let unknown = || refuse(format!("vsock has no option {part:?}"));
        let (name, value) = part.split_once('=').ok_or_else(unknown)?;
        let not_a_number = || refuse(format!("{name} is a number, not {value:?}"));
        match name {
            "cid" => cid = Some(value.parse().map_err(|_| not_a_number())?),
            "uds" if value.is_empty() => return Err(refuse("the socket's path is missing".into())),
            "uds" => path = Some(PathBuf::from(value)),
            "streams" => streams = Some(value.parse().map_err(|_| not_a_number())?),
            _ => return Err(unknown()),
        }
    }
    let missing = |what| refuse(format!("vsock needs {what}"));
    let cid = cid.ok_or_else(|| missing("cid=N"))?;
    let path = path.ok_or_else(|| missing("uds=PATH"))?;
    let mut config = VsockConfig::new(cid, path);
    config.streams = streams.unwrap_or(config.streams);
    config.check().map_err(|error| refuse(error.to_string()))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_what_their_options_say() {
        let plain = VsockConfig::new(3, "/run/a,b.sock");
        assert_eq!(parse_vsock("cid=3,uds=/run/a,,b.sock"), Ok(plain.clone()));
        let few = VsockConfig {
            streams: 7,
            ..plain
        };
        assert_eq!(parse_vsock("streams=7,uds=/run/a,,b.sock,cid=3"), Ok(few));
        let long = format!("cid=3,uds=/{}", "x".repeat(100));
        for (text, why) in [
            ("", "no option \"\""),
            ("cid=3", "needs uds=PATH"),
            ("uds=x", "needs cid=N"),
            ("cid=3,uds=", "path is missing"),
            ("cid=three,uds=x", "cid is a number, not \"three\""),
            ("cid=2,uds=x", "CID 2 is reserved"),
            ("cid=4294967295,uds=x", "4294967295 is reserved"),
            ("cid=3,uds=x,streams=0", "0 streams"),
            ("cid=3,uds=x,path=y", "no option \"path=y\""),
            (&long, "101 bytes"),
        ] {
            let error = parse_vsock(text).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("; write cid=N"),
                "{error}"
            );
        }
    }
}
