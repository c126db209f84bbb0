//! Requests, as the guest writes them (RFC 9112).

use httparse::{EMPTY_HEADER, Header};

use crate::response::Status;

/// The longest request, in bytes, with its body, which nobody reads.
pub(crate) const MAX_REQUEST: usize = 8 << 10;
/// The most header fields.
const MAX_HEADERS: usize = 64;

/// What a request says, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'b> {
    pub(crate) method: &'b str,
    /// The path, without a query.
    pub(crate) path: &'b str,
    /// It asks for JSON.
    pub(crate) wants_json: bool,
    pub(crate) token: Option<&'b [u8]>,
    /// For how long a token is asked for, and by which field.
    pub(crate) lifetime: Option<(&'static str, &'b [u8])>,
    /// It was passed on for somebody else.
    pub(crate) is_forwarded: bool,
    /// The connection goes on after it.
    pub(crate) keeps_alive: bool,
}

/// What the beginning of a stream is.
#[derive(Debug)]
pub(crate) enum Parsed<'b> {
    /// A request is not whole yet.
    Incomplete,
    /// A request of so many bytes.
    Whole(Request<'b>, usize),
    /// Nothing that can be understood, nor what comes after it.
    Bad(Status, &'static str),
}

/// Both names of a field: the service's own, and the one of Amazon's EC2.
const TOKEN: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const LIFETIME: [&str; 2] = [
    "X-metadata-token-ttl-seconds",
    "X-aws-ec2-metadata-token-ttl-seconds",
];
const FORWARDED: &str = "X-Forwarded-For";

/// Reads the first request of what a guest has sent.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => return Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let why = "The request's header is too long.";
            return Parsed::Bad(Status::HeadersTooLarge, why);
        }
        Err(_) => return Parsed::Bad(Status::BadRequest, "The request is malformed."),
    };
    let headers = &*request.headers;
    let len = match body(headers) {
        Ok(body) => head.saturating_add(body),
        Err((status, why)) => return Parsed::Bad(status, why),
    };
    if len > MAX_REQUEST {
        return Parsed::Bad(Status::PayloadTooLarge, "The request's body is too long.");
    }
    if bytes.len() < len {
        return Parsed::Incomplete;
    }
    let Some(path) = request.path.and_then(path) else {
        return Parsed::Bad(Status::BadRequest, "Invalid URI.");
    };
    let lifetime = LIFETIME
        .into_iter()
        .find_map(|name| Some((name, value(headers, name)?)));
    let request = Request {
        method: request.method.unwrap_or_default(),
        path,
        wants_json: has_word(headers, "Accept", "application/json"),
        token: TOKEN.into_iter().find_map(|name| value(headers, name)),
        lifetime,
        is_forwarded: value(headers, FORWARDED).is_some(),
        keeps_alive: match request.version {
            Some(1) => !has_word(headers, "Connection", "close"),
            _ => has_word(headers, "Connection", "keep-alive"),
        },
    };
    Parsed::Whole(request, len)
}

/// The length of the body (RFC 9112 §6.3).
fn body(headers: &[Header<'_>]) -> Result<usize, (Status, &'static str)> {
    if value(headers, "Transfer-Encoding").is_some() {
        return Err((
            Status::NotImplemented,
            "Transfer codings are not supported.",
        ));
    }
    let malformed = (Status::BadRequest, "The request's length is malformed.");
    let mut length = None;
    for header in fields(headers, "Content-Length") {
        let text = std::str::from_utf8(header).map_err(|_| malformed)?.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed);
        }
        // A number that is none of ours is longer than all that is taken.
        let number = text.parse().unwrap_or(usize::MAX);
        if length.is_some_and(|other| other != number) {
            return Err(malformed);
        }
        length = Some(number);
    }
    Ok(length.unwrap_or(0))
}

/// The path of a target in origin form or in absolute form (RFC 9112 §3.2).
fn path(target: &str) -> Option<&str> {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.get(rest.find('/')?..)?
        }
        _ => target,
    };
    let path = path.split(['?', '#']).next()?;
    path.starts_with('/').then_some(path)
}

/// The values of all fields with a name.
fn fields<'a, 'b: 'a>(
    headers: &'a [Header<'b>],
    name: &'a str,
) -> impl Iterator<Item = &'b [u8]> + 'a {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// The value of the first field with a name.
fn value<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    fields(headers, name).next().map(<[u8]>::trim_ascii)
}

/// Whether a word is in the lists that the fields of a name are, parameters aside.
fn has_word(headers: &[Header<'_>], name: &str, word: &str) -> bool {
    let mut words = fields(headers, name)
        .flat_map(|list| list.split(|byte| *byte == b','))
        .map(|item| item.split(|byte| *byte == b';').next().unwrap_or_default());
    words.any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> (Request<'_>, usize) {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, len) => (request, len),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    fn bad(text: &str) -> Status {
        match parse(text.as_bytes()) {
            Parsed::Bad(status, _) => status,
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[test]
    fn requests_say_what_they_say() {
        let text = "PUT /a/b?c=/d HTTP/1.1\r\nhost: x\r\naccept: text/html, Application/JSON;q=0.9\r\n\
                    x-AWS-ec2-metadata-token:  abc \r\nX-metadata-token-ttl-seconds: 60\r\ncontent-length: 3\r\n\r\nxyzGET";
        let (request, len) = whole(text);
        assert_eq!(len, text.len() - 3);
        assert_eq!((request.method, request.path), ("PUT", "/a/b"));
        assert!(request.wants_json && request.keeps_alive && !request.is_forwarded);
        assert_eq!(request.token, Some(&b"abc"[..]));
        assert_eq!(request.lifetime, Some((LIFETIME[0], &b"60"[..])));
        for len in 0..len {
            let beginning = &text.as_bytes()[..len];
            assert!(matches!(parse(beginning), Parsed::Incomplete), "{len}");
        }
    }

    #[test]
    fn connections_go_on_by_their_version_unless_it_is_said() {
        for (version, field, goes_on) in [
            ("1.1", "", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: foo, keep-alive\r\n", true),
        ] {
            let text = format!("GET / HTTP/{version}\r\n{field}\r\n");
            assert_eq!(whole(&text).0.keeps_alive, goes_on, "{text:?}");
        }
    }

    #[test]
    fn targets_are_paths_or_uris_with_paths() {
        for (target, path) in [
            ("/", "/"),
            ("//a//", "//a//"),
            ("http://169.254.169.254/a", "/a"),
            ("HTTP://x/", "/"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(whole(&text).0.path, path);
        }
        for target in ["http://x", "https://x/a", "*", "a", "?a"] {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(bad(&text), Status::BadRequest, "{target}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, status) in [
            ("\0", Status::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Status::NotImplemented,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 8192\r\n\r\n",
                Status::PayloadTooLarge,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                Status::PayloadTooLarge,
            ),
        ] {
            assert_eq!(bad(text), status, "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_REQUEST));
        assert_eq!(bad(&long), Status::HeadersTooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(bad(&many), Status::HeadersTooLarge);
    }
}
