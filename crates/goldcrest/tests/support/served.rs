//! A tool that serves its API, and requests to it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Ended, Running, SOON, goldcrest, run};

/// A tool that serves its API.
pub struct Served {
    pub running: Running,
    pub socket: PathBuf,
    pub dir: TempDir,
}

/// Starts the tool with a socket, and waits until it can be reached.
pub fn serve(arguments: &[&str]) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let running = Running::start(serving(&socket).args(arguments));
    wait_until_served(&socket);
    Served {
        running,
        socket,
        dir,
    }
}

/// `goldcrest run --api-sock SOCKET`, without input.
pub fn serving(socket: &Path) -> Command {
    let mut tool = goldcrest();
    tool.args(["run", "--api-sock"]).arg(socket);
    tool
}

/// Waits until somebody listens there.
pub fn wait_until_served(socket: &Path) {
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(begun.elapsed() < SOON, "nobody listens");
        sleep(Duration::from_millis(1));
    }
}

impl Served {
    /// A request by the tool itself: its answer, or why not.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut tool = goldcrest();
        tool.args(["ctl", "-s"]).arg(&self.socket).args(arguments);
        let ended = run(&mut tool);
        match ended.code() {
            0 => Ok(ended.stdout),
            _ => Err(ended.complaint(2)),
        }
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<String, String> {
        self.ctl(&["put", path, &body.to_string()])
    }

    /// Boots an image, with what it is to be told.
    pub fn boot(&self, image: &Path, args: &str) {
        let source = json!({ "kernel_image_path": image, "boot_args": args });
        self.put("/boot-source", &source).unwrap();
        self.ctl(&["start"]).unwrap();
    }

    pub fn state(&self) -> Value {
        let answer = self.ctl(&["get", "/"]).unwrap();
        let info: Value = serde_json::from_str(&answer).unwrap();
        info["state"].clone()
    }

    /// Bytes that the guest has printed so far.
    pub fn printed(&self) -> usize {
        self.running.stdout().len()
    }

    /// Waits until the guest prints more.
    pub fn goes_on(&self) {
        let (before, begun) = (self.printed(), Instant::now());
        while self.printed() <= before {
            assert!(begun.elapsed() < SOON, "the guest does not go on");
            sleep(Duration::from_millis(1));
        }
    }

    pub fn finish(self) -> Ended {
        let Self {
            running,
            socket,
            dir,
        } = self;
        let ended = running.finish();
        assert!(!socket.exists(), "{ended:?}");
        drop(dir);
        ended
    }
}
