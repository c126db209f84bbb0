//! The control API: HTTP/1.1 with JSON over a Unix socket, as clients of Firecracker speak it.
//!
//! Paths, fields and status codes are those of Firecracker's public API v1.x; `docs/api.md` has the table of what is the
//! same and what is not, and `openapi.json` describes all that there is. What is ours alone is under `/goldcrest/`.
//!
//! A request goes through three layers, each of which can be had without the ones above it: [`Call::read`] makes a typed
//! call of a method, a path and a body; a [`Controller`] knows what may be called for when, and does it with a
//! [`Machine`]; a [`Server`] has hyper read requests from a socket, on a thread that is there only then.
//!
//! ```
//! use goldcrest_api::{ApiError, Call};
//!
//! let call = Call::read("PATCH", "/vm", br#"{"state": "Paused"}"#)?;
//! assert!(matches!(call, Call::PatchVm(_)));
//! let refused = Call::read("PATCH", "/vm", br#"{"state": "Lost"}"#).unwrap_err();
//! assert_eq!(refused.status(), 400);
//! # Ok::<(), ApiError>(())
//! ```
//!
//! What happens is told by events of the crate `tracing`; where they go is for the program to say ([`Logs`]).
//!
//! # A hostile client
//!
//! is one that may open the socket, which is its owner's alone. Bodies, heads and connections are limited ([`Limits`]);
//! whoever is slow is cut off, and whoever opens more connections than there may be closes the silent ones, never the
//! server. The guest's threads do not wait for the server's. What is refused changes nothing.

mod build;
mod call;
mod controller;
mod error;
mod journal;
mod logs;
mod machine;
pub mod model;
mod restore;
mod runner;
mod scripted;
mod server;
mod socket;

pub use build::Surroundings;
pub use call::{Call, Method, ROUTES, Route};
pub use controller::{Answer, Controller, FIRECRACKER_VERSION, OPENAPI};
pub use error::{ApiError, Fault};
pub use journal::Journal;
pub use logs::Logs;
pub use machine::Machine;
pub use runner::{Launcher, Runner};
pub use scripted::ScriptedMachine;
pub use server::{Limits, MAX_BODY, Server};
pub use socket::Socket;
