//! Responses, as the guest reads them (RFC 9112).

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    HeadersTooLarge,
    NotImplemented,
}

impl Status {
    /// As a status line has it (RFC 9110 §15, RFC 6585 §5).
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::PayloadTooLarge => "413 Content Too Large",
            Self::HeadersTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
        }
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: Status,
    pub(crate) is_json: bool,
    /// One more header field: its name and its value.
    pub(crate) field: Option<(&'static str, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn text(status: Status, body: impl Into<String>) -> Self {
        Self {
            status,
            is_json: false,
            field: None,
            body: body.into(),
        }
    }

    /// Its bytes. A response to `HEAD` has no body, whatever its header says (RFC 9110 §9.3.2).
    pub(crate) fn bytes(&self, keeps_alive: bool, with_body: bool) -> Vec<u8> {
        let kind = match self.is_json {
            true => "application/json",
            false => "text/plain",
        };
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: {}\r\n",
            self.status.line(),
            self.body.len(),
            if keeps_alive { "keep-alive" } else { "close" },
        );
        if let Some((name, value)) = &self.field {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        if with_body {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_written_with_their_length() {
        let mut response = Response::text(Status::NotFound, "four");
        let text = |response: &Response, keeps, body| {
            String::from_utf8(response.bytes(keeps, body)).unwrap()
        };
        let head = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n";
        assert_eq!(
            text(&response, true, true),
            format!("{head}Connection: keep-alive\r\n\r\nfour")
        );
        response.field = Some(("Allow", "GET".into()));
        assert_eq!(
            text(&response, false, false),
            format!("{head}Connection: close\r\nAllow: GET\r\n\r\n")
        );
    }
}
