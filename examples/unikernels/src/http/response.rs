//! From a request to a response, and from there to bytes.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Method, Request};

/// The page at `/`.
const PAGE: &[u8] = include_bytes!("page.html");
/// The most bytes that `/bytes/` gives.
const MOST_BYTES: u64 = 1 << 30;
/// What `/bytes/` gives, over and over: the numbers from 0 to 250, so that no power of two is a period.
const PERIOD: usize = 251;
static PATTERN: [u8; 32 * PERIOD] = pattern();

/// How a request was answered (RFC 9110 §15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    Ok = 200,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    ContentTooLarge = 413,
    HeadTooLarge = 431,
    NotImplemented = 501,
    VersionNotSupported = 505,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::ContentTooLarge => "Content Too Large",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::NotImplemented => "Not Implemented",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        };
        write!(f, "{} {reason}", *self as u16)
    }
}

/// What a response carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The status, as a line of text.
    Status,
    /// The page at `/`.
    Page,
    /// So many bytes of a pattern.
    Bytes(u64),
}

impl Body {
    /// The bytes from `at` on, as many as are at hand at once; none at the end.
    pub fn rest(self, status: Status, at: u64) -> &'static [u8] {
        match self {
            Self::Status => part(status.line().as_bytes(), at),
            Self::Page => part(PAGE, at),
            Self::Bytes(len) => {
                let from = part(&PATTERN, at % PERIOD as u64);
                let most = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX);
                &from[..from.len().min(most)]
            }
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub body: Body,
    /// The body is not sent, only described.
    pub head_only: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The client has to be told that it does.
    pub old: bool,
    /// The server ends.
    pub quit: bool,
}

impl Response {
    /// Answers what is no request, and leaves it at that.
    pub fn refusal(status: Status) -> Self {
        Self {
            status,
            body: Body::Status,
            head_only: false,
            keep_alive: false,
            old: false,
            quit: false,
        }
    }

    /// Answers a request.
    pub fn to(request: &Request<'_>) -> Self {
        let read = matches!(request.method, Method::Get | Method::Head);
        let bytes = request.path.strip_prefix("/bytes/").map(str::parse);
        let quit = request.path == "/quit" || request.path == "/shutdown";
        let (status, body) = match bytes {
            _ if quit && (read || request.method == Method::Post) => (Status::Ok, Body::Status),
            _ if !read => (Status::MethodNotAllowed, Body::Status),
            Some(Ok(len @ 0..=MOST_BYTES)) => (Status::Ok, Body::Bytes(len)),
            _ if request.path == "/" => (Status::Ok, Body::Page),
            _ => (Status::NotFound, Body::Status),
        };
        Self {
            status,
            body,
            head_only: request.method == Method::Head,
            keep_alive: request.keep_alive && !quit,
            old: request.old,
            quit: quit && status == Status::Ok && request.method != Method::Head,
        }
    }

    /// Writes the head.
    pub fn write_head(&self, to: &mut Vec<u8>) {
        let (kind, len) = match self.body {
            Body::Status => ("text/plain", self.status.line().len() as u64),
            Body::Page => ("text/html; charset=utf-8", PAGE.len() as u64),
            Body::Bytes(len) => ("application/octet-stream", len),
        };
        let connection = match (self.keep_alive, self.old) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        let allow = match self.status {
            Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let status = self.status;
        // Writing to memory does not fail.
        let _ = write!(
            Text(to),
            "HTTP/1.1 {status}\r\nServer: goldcrest\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
             {allow}{connection}\r\n",
        );
    }
}

impl Status {
    /// A line of text for people.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "ok\n",
            Self::BadRequest => "bad request\n",
            Self::NotFound => "not found\n",
            Self::MethodNotAllowed => "method not allowed\n",
            Self::ContentTooLarge => "content too large\n",
            Self::HeadTooLarge => "header fields too large\n",
            Self::NotImplemented => "not implemented\n",
            Self::VersionNotSupported => "HTTP version not supported\n",
        }
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn part(bytes: &'static [u8], at: u64) -> &'static [u8] {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(at..).unwrap_or_default()
}

const fn pattern() -> [u8; 32 * PERIOD] {
    let mut bytes = [0; 32 * PERIOD];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % PERIOD) as u8;
        at += 1;
    }
    bytes
}
