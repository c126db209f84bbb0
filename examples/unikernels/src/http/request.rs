//! From bytes to a request.

use super::Status;

/// Bytes that the head of a request has at most: its first line and all its fields.
pub const MAX_HEAD: usize = 8192;
/// Bytes that the body of a request has at most. It is not looked at.
pub const MAX_BODY: u64 = 1 << 20;
/// Fields that a request has at most.
const MAX_FIELDS: usize = 64;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    /// Any other.
    Other,
}

/// A request's head, as far as the server cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: Method,
    /// Without the query.
    pub path: &'a str,
    /// The connection stays open afterwards.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    /// Bytes of the body, which follow the head.
    pub body: u64,
}

/// What a client's bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a request: the rest is still to come.
    Partial,
    /// A request, and the bytes of its head.
    Complete(Request<'a>, usize),
    /// Nothing that the server answers but by this status; where the next request begins nobody knows.
    Refused(Status),
}

/// Looks what `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => match understand(&request) {
            Ok(request) => Parsed::Complete(request, len),
            Err(status) => Parsed::Refused(status),
        },
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Parsed::Refused(Status::HeadTooLarge),
        Err(httparse::Error::Version) => Parsed::Refused(Status::VersionNotSupported),
        Err(_) => Parsed::Refused(Status::BadRequest),
    }
}

fn understand<'a>(request: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Status> {
    let old = request.version == Some(0);
    let values = |name: &'static str| {
        let named = request.headers.iter();
        named
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    // Exactly one, says RFC 9112 §3.2.
    if values("host").count() > 1 || !old && values("host").count() == 0 {
        return Err(Status::BadRequest);
    }
    if values("transfer-encoding").next().is_some() {
        return Err(Status::NotImplemented);
    }
    let body = body(values("content-length"))?;
    let says = |word: &[u8]| values("connection").any(|value| has_word(value, word));
    let target = request.path.unwrap_or_default();
    Ok(Request {
        method: match request.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            _ => Method::Other,
        },
        path: target.split('?').next().unwrap_or_default(),
        keep_alive: !says(b"close") && (!old || says(b"keep-alive")),
        old,
        body,
    })
}

/// What the fields Content-Length say: one number, however often.
fn body<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<u64, Status> {
    let mut body = None;
    for value in values {
        let digits = value.iter().all(u8::is_ascii_digit) && !value.is_empty();
        let text = core::str::from_utf8(value).unwrap_or_default();
        let found = match text.parse::<u64>() {
            Ok(found) => found,
            // A number that does not fit is too many bytes, too.
            Err(_) if digits => u64::MAX,
            Err(_) => return Err(Status::BadRequest),
        };
        if !digits || body.is_some_and(|body| body != found) {
            return Err(Status::BadRequest);
        }
        body = Some(found);
    }
    match body.unwrap_or(0) {
        0..=MAX_BODY => Ok(body.unwrap_or(0)),
        _ => Err(Status::ContentTooLarge),
    }
}

/// Whether a list of words, separated by commas, has this one.
fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| *byte == b',')
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    fn request(text: &str) -> Result<(Request<'_>, usize), Status> {
        match parse(text.as_bytes()) {
            Parsed::Complete(request, len) => Ok((request, len)),
            Parsed::Refused(status) => Err(status),
            Parsed::Partial => panic!("{text:?} is not complete"),
        }
    }

    #[test]
    fn a_request_is_understood_and_ends_where_its_head_does() {
        let text = "GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\nGET /";
        let (found, len) = request(text).unwrap();
        let expected = Request {
            method: Method::Get,
            path: "/a/b",
            keep_alive: true,
            old: false,
            body: 0,
        };
        assert_eq!((found, &text[len..]), (expected, "GET /"));
        let (found, _) = request("POST / HTTP/1.1\r\nhost:x\r\ncontent-length: 5\r\n\r\n").unwrap();
        assert_eq!((found.method, found.body), (Method::Post, 5));
    }

    #[test]
    fn a_connection_stays_open_as_version_and_fields_say() {
        for (version, field, keep_alive) in [
            ("1.1", "", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: a , close\r\n", false),
            ("1.1", "Connection: a\r\nConnection: close\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: x\r\n{field}\r\n");
            let (found, _) = request(&text).unwrap();
            assert_eq!(found.keep_alive, keep_alive, "{text:?}");
            assert_eq!(found.old, version == "1.0");
        }
    }

    #[test]
    fn every_beginning_of_a_request_is_partial() {
        let text = "GET / HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..len]), Parsed::Partial, "{len}");
        }
        assert!(matches!(parse(text.as_bytes()), Parsed::Complete(_, len) if len == text.len()));
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_status_that_says_why() {
        let host = "Host: x\r\n";
        for (text, status) in [
            (String::from("\0"), Status::BadRequest),
            ("GET\r\n\r\n".into(), Status::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n".into(), Status::BadRequest),
            (
                format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
                Status::BadRequest,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}a b: c\r\n\r\n"),
                Status::BadRequest,
            ),
            (
                format!("GET / HTTP/2.0\r\n{host}\r\n"),
                Status::VersionNotSupported,
            ),
            (
                format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n"),
                Status::NotImplemented,
            ),
        ] {
            assert_eq!(request(&text).unwrap_err(), status, "{text:?}");
        }
        for (length, status) in [
            ("-1", Status::BadRequest),
            ("+1", Status::BadRequest),
            ("", Status::BadRequest),
            ("1, 1", Status::BadRequest),
            ("1\r\nContent-Length: 2", Status::BadRequest),
            ("1048577", Status::ContentTooLarge),
            ("99999999999999999999999", Status::ContentTooLarge),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n");
            assert_eq!(request(&text).unwrap_err(), status, "{text:?}");
        }
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\n";
        let long = format!("{head}A: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(request(&long).unwrap_err(), Status::HeadTooLarge);
        assert_eq!(parse(&long.as_bytes()[..MAX_HEAD - 1]), Parsed::Partial);
        let refused = Parsed::Refused(Status::HeadTooLarge);
        assert_eq!(parse(&long.as_bytes()[..MAX_HEAD]), refused);
        let many = format!("{head}{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        assert_eq!(request(&many).unwrap_err(), Status::HeadTooLarge);
    }
}
