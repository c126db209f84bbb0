//! The server's side of HTTP/1.1 (RFC 9112), between two streams of bytes.
//!
//! A [`Connection`] reads requests and writes responses, in whatever pieces the bytes come and go: it keeps what it has to
//! until the [`Stream`] has more, or more room. What it holds is bounded, whatever a client sends.

mod connection;
mod request;
mod response;

pub use connection::{Connection, Progress, Stream};
pub use request::{MAX_BODY, MAX_HEAD, Method, Parsed, Request, parse};
pub use response::{Body, Response, Status};
