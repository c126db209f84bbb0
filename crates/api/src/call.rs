//! Requests: from a method, a path and a body to a call.

use serde::de::DeserializeOwned;

use crate::ApiError;
use crate::model::{
    Action, Balloon, BalloonStatisticsUpdate, BalloonUpdate, BootSource, CpuConfig, Drive,
    DriveUpdate, Entropy, Logger, MachineConfiguration, MachineConfigurationUpdate, Metrics,
    MmdsConfiguration, NetworkInterface, NetworkInterfaceUpdate, Serial, SnapshotCreate,
    SnapshotLoad, Vm, Vsock,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named as its route, below")]
pub enum Call {
    DescribeInstance,
    GetVersion,
    GetVmConfig,
    GetMachineConfig,
    PutMachineConfig(MachineConfiguration),
    PatchMachineConfig(MachineConfigurationUpdate),
    PutBootSource(BootSource),
    PutCpuConfig(CpuConfig),
    PutDrive(Drive),
    PatchDrive(DriveUpdate),
    PutNetworkInterface(NetworkInterface),
    PatchNetworkInterface(NetworkInterfaceUpdate),
    PutVsock(Vsock),
    PutEntropy(Entropy),
    PutSerial(Serial),
    GetBalloon,
    PutBalloon(Balloon),
    PatchBalloon(BalloonUpdate),
    GetBalloonStatistics,
    PatchBalloonStatistics(BalloonStatisticsUpdate),
    PutLogger(Logger),
    PutMetrics(Metrics),
    PutAction(Action),
    PatchVm(Vm),
    CreateSnapshot(SnapshotCreate),
    LoadSnapshot(SnapshotLoad),
    GetMmds,
    PutMmds(serde_json::Value),
    PatchMmds(serde_json::Value),
    PutMmdsConfig(MmdsConfiguration),
    GetStatus,
    GetMetrics,
    GetMetricsAsJson,
    GetOpenApi,
    Stop,
}

/// A method of the API's. HTTP has others, which nothing here has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Sets.
    Put,
    /// Changes.
    Patch,
}

impl Method {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

/// A method of a path, and how its body is read.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; a part in braces stands for a name.
    pub path: &'static str,
    read: fn(&str, &[u8]) -> Result<Call, ApiError>,
}

const fn get(path: &'static str, read: fn(&str, &[u8]) -> Result<Call, ApiError>) -> Route {
    let method = Method::Get;
    Route { method, path, read }
}

const fn put(path: &'static str, read: fn(&str, &[u8]) -> Result<Call, ApiError>) -> Route {
    let method = Method::Put;
    Route { method, path, read }
}

const fn patch(path: &'static str, read: fn(&str, &[u8]) -> Result<Call, ApiError>) -> Route {
    let method = Method::Patch;
    Route { method, path, read }
}

/// All that there is. Each is described in `openapi.json`.
pub const ROUTES: &[Route] = &[
    get("/", |_, _| Ok(Call::DescribeInstance)),
    get("/version", |_, _| Ok(Call::GetVersion)),
    get("/vm/config", |_, _| Ok(Call::GetVmConfig)),
    get("/machine-config", |_, _| Ok(Call::GetMachineConfig)),
    put("/machine-config", |_, b| {
        json(b).map(Call::PutMachineConfig)
    }),
    patch("/machine-config", |_, b| {
        json(b).map(Call::PatchMachineConfig)
    }),
    put("/boot-source", |_, b| json(b).map(Call::PutBootSource)),
    put("/cpu-config", |_, b| json(b).map(Call::PutCpuConfig)),
    put("/drives/{drive_id}", |id, b| {
        let drive: Drive = json(b)?;
        same(id, &drive.drive_id)?;
        Ok(Call::PutDrive(drive))
    }),
    patch("/drives/{drive_id}", |id, b| {
        let update: DriveUpdate = json(b)?;
        same(id, &update.drive_id)?;
        Ok(Call::PatchDrive(update))
    }),
    put("/network-interfaces/{iface_id}", |id, b| {
        let interface: NetworkInterface = json(b)?;
        same(id, &interface.iface_id)?;
        Ok(Call::PutNetworkInterface(interface))
    }),
    patch("/network-interfaces/{iface_id}", |id, b| {
        let update: NetworkInterfaceUpdate = json(b)?;
        same(id, &update.iface_id)?;
        Ok(Call::PatchNetworkInterface(update))
    }),
    put("/vsock", |_, b| json(b).map(Call::PutVsock)),
    put("/entropy", |_, b| json(b).map(Call::PutEntropy)),
    put("/serial", |_, b| json(b).map(Call::PutSerial)),
    get("/balloon", |_, _| Ok(Call::GetBalloon)),
    put("/balloon", |_, b| json(b).map(Call::PutBalloon)),
    patch("/balloon", |_, b| json(b).map(Call::PatchBalloon)),
    get("/balloon/statistics", |_, _| Ok(Call::GetBalloonStatistics)),
    patch("/balloon/statistics", |_, b| {
        json(b).map(Call::PatchBalloonStatistics)
    }),
    put("/logger", |_, b| json(b).map(Call::PutLogger)),
    put("/metrics", |_, b| json(b).map(Call::PutMetrics)),
    get("/mmds", |_, _| Ok(Call::GetMmds)),
    put("/mmds", |_, b| json(b).map(Call::PutMmds)),
    patch("/mmds", |_, b| json(b).map(Call::PatchMmds)),
    put("/mmds/config", |_, b| json(b).map(Call::PutMmdsConfig)),
    put("/actions", |_, b| json(b).map(Call::PutAction)),
    patch("/vm", |_, b| json(b).map(Call::PatchVm)),
    put("/snapshot/create", |_, b| json(b).map(Call::CreateSnapshot)),
    put("/snapshot/load", |_, b| json(b).map(Call::LoadSnapshot)),
    get("/goldcrest/v1/status", |_, _| Ok(Call::GetStatus)),
    get("/goldcrest/v1/metrics", |_, _| Ok(Call::GetMetrics)),
    get("/goldcrest/v1/metrics/json", |_, _| {
        Ok(Call::GetMetricsAsJson)
    }),
    get("/goldcrest/v1/openapi", |_, _| Ok(Call::GetOpenApi)),
    put("/goldcrest/v1/stop", |_, b| {
        let Nothing {} = json(b)?;
        Ok(Call::Stop)
    }),
];

/// A body that says nothing: `{}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Call {
    /// The call that a request makes. A slash at the end of the path changes nothing, as with Firecracker.
    ///
    /// # Errors
    ///
    /// [`ApiError`] if there is no such method of such a path, or the body is not what it should be.
    pub fn read(method: &str, path: &str, body: &[u8]) -> Result<Self, ApiError> {
        let route = route_of(method, path).and_then(|index| ROUTES.get(index));
        let Some((route, id)) = route.and_then(|route| Some((route, matches(route.path, path)?)))
        else {
            return Err(ApiError::Route {
                method: clipped(method),
                path: clipped(path),
            });
        };
        if !id.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            return Err(ApiError::Id(clipped(id)));
        }
        match (route.method, body.is_empty()) {
            (Method::Get, false) => Err(ApiError::Body),
            (Method::Put | Method::Patch, true) => Err(ApiError::NoBody(route.method.name())),
            _ => (route.read)(id, body),
        }
    }
}

/// The place among [`ROUTES`] of a method of a path.
pub(crate) fn route_of(method: &str, path: &str) -> Option<usize> {
    let is_it =
        |route: &Route| route.method.name() == method && matches(route.path, path).is_some();
    ROUTES.iter().position(is_it)
}

/// Whether a path is of this form, and the name in it; an empty one if it has none.
fn matches<'p>(form: &str, path: &'p str) -> Option<&'p str> {
    let mut name = "";
    let mut parts = parts(path);
    for wanted in self::parts(form) {
        let part = parts.next()?;
        if wanted.starts_with('{') && !part.is_empty() {
            name = part;
        } else if part != wanted {
            return None;
        }
    }
    parts.next().is_none().then_some(name)
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_start_matches('/');
    path.strip_suffix('/')
        .unwrap_or(path)
        .split('/')
        .filter(move |_| !path.is_empty())
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    Ok(serde_json::from_slice(body)?)
}

fn same(path: &str, body: &str) -> Result<(), ApiError> {
    match path == body {
        true => Ok(()),
        false => Err(ApiError::OtherId {
            path: clipped(path),
            body: clipped(body),
        }),
    }
}

/// The most characters of a client's that an answer repeats.
const REPEATED: usize = 100;

fn clipped(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &str, path: &str, body: &str) -> String {
        Call::read(method, path, body.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn paths_lead_to_calls() {
        let read = |method, path, body: &str| Call::read(method, path, body.as_bytes()).unwrap();
        assert_eq!(read("GET", "/", ""), Call::DescribeInstance);
        assert_eq!(read("GET", "", ""), Call::DescribeInstance);
        assert_eq!(read("GET", "/vm/config/", ""), Call::GetVmConfig);
        assert_eq!(read("PUT", "/goldcrest/v1/stop", "{}"), Call::Stop);
        let drive = r#"{"drive_id":"root_1","is_root_device":true,"path_on_host":"a"}"#;
        let Call::PutDrive(drive) = read("PUT", "/drives/root_1", drive) else {
            panic!();
        };
        assert_eq!(drive.path_on_host, Some("a".into()));
    }

    #[test]
    fn what_is_not_a_request_is_refused_with_the_reason() {
        for (method, path, body, why) in [
            ("GET", "/nothing", "", "there is no GET of /nothing"),
            ("DELETE", "/vm", "", "there is no DELETE of /vm"),
            ("GET", "/vm/config/more", "", "there is no GET of"),
            ("GET", "/", "{}", "a GET has no body"),
            ("PUT", "/vsock", "", "a PUT needs a body"),
            ("PATCH", "/vm", "{", "cannot read the body: EOF"),
            (
                "PATCH",
                "/vm",
                r#"{"state":"Stopped"}"#,
                "unknown variant `Stopped`",
            ),
            ("PUT", "/entropy", r#"{"x":1}"#, "unknown field `x`"),
            ("PUT", "/drives", "{}", "there is no PUT of /drives"),
            (
                "PUT",
                "/drives/a-b",
                "{}",
                "the id \"a-b\" has other characters",
            ),
            ("PUT", "/drives//", "{}", "there is no PUT of /drives//"),
            (
                "PUT",
                "/drives/a",
                r#"{"drive_id":"b","is_root_device":true}"#,
                "the id \"a\" of the path is not the id \"b\" of the body",
            ),
        ] {
            let said = refusal(method, path, body);
            assert!(said.contains(why), "{method} {path}: {said}");
        }
        assert!(refusal("GET", &"/x".repeat(10_000), "").len() < 500);
    }

    #[test]
    fn no_two_routes_are_the_same() {
        for (at, route) in ROUTES.iter().enumerate() {
            for other in ROUTES.iter().skip(at + 1) {
                let same = route.method == other.method && route.path == other.path;
                assert!(!same, "{}", route.path);
            }
        }
    }
}
