//! `goldcrest ctl`: calls of the control API from the command line.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::failure::Failure;

/// What is asked of a machine.
#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// What the machine does, for how long, and how it is configured
    Status,
    /// Start what is configured
    Start,
    /// Halt the machine
    Pause,
    /// Let it go on
    Resume,
    /// End it
    Stop,
    /// Change how much memory the guest is to give back
    Balloon {
        /// MiB
        #[arg(value_name = "MIB")]
        amount: u32,
    },
    /// Save the machine, which must be paused, to the files `state` and `memory` of a directory
    Snapshot {
        /// The directory, which is made if it is not there
        directory: PathBuf,

        /// Only what has changed since the last one
        #[arg(long)]
        diff: bool,
    },
    /// Any other question, for example get /machine-config
    Get {
        /// The path
        path: String,
    },
    /// Any other setting, for example put /entropy '{}'
    Put {
        /// The path
        path: String,
        /// JSON; @FILE for that of a file, - for that of standard input
        body: String,
    },
    /// Any other change, for example patch /balloon '{"amount_mib": 64}'
    Patch {
        /// The path
        path: String,
        /// JSON; @FILE for that of a file, - for that of standard input
        body: String,
    },
}

/// Makes a request, and prints what is answered.
pub(crate) fn ctl(socket: &Path, request: &Request) -> Result<u8, Failure> {
    let (method, path, body) = match request {
        Request::Status => return status(socket),
        Request::Start => put("/actions", &json!({ "action_type": "InstanceStart" })),
        Request::Pause => patch("/vm", &json!({ "state": "Paused" })),
        Request::Resume => patch("/vm", &json!({ "state": "Resumed" })),
        Request::Stop => put("/goldcrest/v1/stop", &json!({})),
        Request::Balloon { amount } => patch("/balloon", &json!({ "amount_mib": amount })),
        Request::Snapshot { directory, diff } => return snapshot(socket, directory, *diff),
        Request::Get { path } => ("GET", path.as_str(), String::new()),
        Request::Put { path, body } => ("PUT", path.as_str(), read_body(body)?),
        Request::Patch { path, body } => ("PATCH", path.as_str(), read_body(body)?),
    };
    let answer = call(socket, method, path, &body)?;
    match answer.is_empty() {
        true => Ok(0),
        false => crate::print(format!("{answer}\n").as_bytes()),
    }
}

/// Has a paused machine saved to a directory.
pub(crate) fn snapshot(socket: &Path, directory: &Path, diff: bool) -> Result<u8, Failure> {
    fs::create_dir_all(directory).map_err(|source| {
        let what = format!("cannot make the directory {}", directory.display());
        Failure::failed(what, source)
    })?;
    // The machine's process has its own working directory.
    let directory = fs::canonicalize(directory).unwrap_or(directory.to_owned());
    let (method, path, body) = put(
        "/snapshot/create",
        &json!({
            "snapshot_path": directory.join("state"),
            "mem_file_path": directory.join("memory"),
            "snapshot_type": if diff { "Diff" } else { "Full" },
        }),
    );
    call(socket, method, path, &body).map(|_| 0)
}

fn put(path: &'static str, body: &Value) -> (&'static str, &'static str, String) {
    ("PUT", path, body.to_string())
}

fn patch(path: &'static str, body: &Value) -> (&'static str, &'static str, String) {
    ("PATCH", path, body.to_string())
}

fn status(socket: &Path) -> Result<u8, Failure> {
    let ask = |path| {
        let answer = call(socket, "GET", path, "")?;
        serde_json::from_str::<Value>(&answer).map_err(|source| broken(&source))
    };
    let (status, config) = (ask("/goldcrest/v1/status")?, ask("/vm/config")?);
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let machine = config.get("machine-config").cloned().unwrap_or_default();
    let field = |value: &Value, name: &str| value.get(name).cloned().unwrap_or_default();
    let mut lines = vec![
        format!(
            "{}: {}",
            text(&field(&status, "id")),
            text(&field(&status, "state"))
        ),
        format!("process {}", field(&status, "pid")),
        format!(
            "{} CPUs, {} MiB",
            field(&machine, "vcpu_count"),
            field(&machine, "mem_size_mib")
        ),
    ];
    if let Some(millis) = field(&status, "uptime_ms").as_u64() {
        lines.push(format!("up for {}.{:03} s", millis / 1000, millis % 1000));
    }
    if let Some(outcome) = field(&status, "outcome").as_str() {
        lines.push(outcome.to_owned());
    }
    crate::print(format!("{}\n", lines.join("\n")).as_bytes())
}

fn read_body(body: &str) -> Result<String, Failure> {
    let failed = |source| Failure::usage(format_args!("cannot read the body {body}"), source);
    match body.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).map_err(failed),
        None if body == "-" => io::read_to_string(io::stdin()).map_err(failed),
        None => Ok(body.to_owned()),
    }
}

/// The body of what is answered.
fn call(socket: &Path, method: &str, path: &str, body: &str) -> Result<String, Failure> {
    let failed = |source| {
        let what = format!("cannot reach the API at {}", socket.display());
        Failure::failed(what, source)
    };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Failure::asked_wrongly(format!("{path:?} is no path")));
    }
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
         Connection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    // A server that refuses at once need not have read all.
    let sent = stream.write_all(format!("{head}{body}").as_bytes());
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        sent.and(received).map_err(failed)?;
    }
    let (status, body) = parse(&answer)?;
    match status {
        200..300 => Ok(body),
        _ => Err(Failure::asked_wrongly(reason(status, &body))),
    }
}

/// The status and the body of an answer, after which the connection ends.
pub(crate) fn parse(answer: &[u8]) -> Result<(u16, String), Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(head)) => {
            let body = answer.get(head..).unwrap_or_default();
            let status = response.code.unwrap_or_default();
            Ok((status, String::from_utf8_lossy(body).into_owned()))
        }
        Ok(httparse::Status::Partial) => Err(broken(&io::Error::other("it ends too soon"))),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::failed("the API's answer", io::Error::other(error.to_string()))
}

/// Why a request was refused.
fn reason(status: u16, body: &str) -> String {
    let fault = serde_json::from_str::<Value>(body).ok();
    let fault = fault
        .as_ref()
        .and_then(|fault| fault.get("fault_message")?.as_str());
    match fault {
        Some(fault) => fault.to_owned(),
        None => format!("the API refuses with status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let parsed = |text: &str| parse(text.as_bytes()).map_err(|failure| failure.to_string());
        let empty = parsed("HTTP/1.1 204 No Content\r\nserver: a\r\n\r\n");
        assert_eq!(empty, Ok((204, String::new())));
        let full = parsed("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(full, Ok((200, "{}".into())));
        for text in ["", "HTTP/1.1 2", "SSH-2.0\r\n\r\n"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert_eq!(reason(400, r#"{"fault_message":"no"}"#), "no");
        assert_eq!(reason(503, ""), "the API refuses with status 503");
    }
}
