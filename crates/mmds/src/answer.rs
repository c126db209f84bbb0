//! What a request is answered with.

use std::time::Duration;

use crate::MmdsVersion;
use crate::request::Request;
use crate::response::{Response, Status};
use crate::store::{Format, Mmds, Untold, pointer};
use crate::token::LIFETIMES;

/// Where tokens are made.
const TOKEN_PATH: &str = "/latest/api/token";

impl Mmds {
    /// Answers a request of the guest's. `now` is the time since a moment that is the same for all cards.
    pub(crate) fn answer(&self, request: &Request<'_>, now: Duration) -> Response {
        match request.method {
            "GET" => self.answer_get(request, now),
            "PUT" => self.answer_put(request, now),
            _ => Response {
                field: Some(("Allow", "GET, PUT".into())),
                ..Response::text(Status::MethodNotAllowed, "Not allowed HTTP method.")
            },
        }
    }

    fn answer_get(&self, request: &Request<'_>, now: Duration) -> Response {
        let config = self.config();
        if config.version == MmdsVersion::V2 {
            let Some(token) = request.token else {
                let why = "No MMDS token provided: put one into the header X-metadata-token.";
                return Response::text(Status::Unauthorized, why);
            };
            if !self.authority.is_valid(token, now) {
                return Response::text(Status::Unauthorized, "MMDS token not valid.");
            }
        }
        let format = match request.wants_json && !config.imds_compat {
            true => Format::Json,
            false => Format::Imds,
        };
        match self.tell(request.path, format) {
            Ok(body) => Response {
                is_json: format == Format::Json,
                ..Response::text(Status::Ok, body)
            },
            Err(Untold::Missing) => missing(request),
            Err(Untold::Type) => {
                let why = "The value is neither a string nor an object: ask for application/json.";
                Response::text(Status::NotImplemented, why)
            }
        }
    }

    /// Makes a token.
    fn answer_put(&self, request: &Request<'_>, now: Duration) -> Response {
        if request.is_forwarded {
            let why = "A request with X-Forwarded-For is not given a token.";
            return Response::text(Status::BadRequest, why);
        }
        if pointer(request.path) != TOKEN_PATH {
            return missing(request);
        }
        let Some((name, lifetime)) = request.lifetime else {
            let why = "No lifetime provided: put one into the header X-metadata-token-ttl-seconds.";
            return Response::text(Status::BadRequest, why);
        };
        let seconds = std::str::from_utf8(lifetime).ok();
        let seconds = seconds.and_then(|text| text.parse().ok());
        match seconds.and_then(|seconds| Some((seconds, self.authority.issue(seconds, now)?))) {
            Some((seconds, token)) => Response {
                field: Some((name, seconds.to_string())),
                ..Response::text(Status::Ok, token)
            },
            None => {
                let (least, most) = (LIFETIMES.start(), LIFETIMES.end());
                let why = format!("The lifetime is a number of seconds from {least} to {most}.");
                Response::text(Status::BadRequest, why)
            }
        }
    }
}

fn missing(request: &Request<'_>) -> Response {
    Response::text(
        Status::NotFound,
        format!("Resource not found: {}.", request.path),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::MmdsConfig;
    use crate::request::{Parsed, parse};

    const NOW: Duration = Duration::from_secs(5);

    fn service(version: MmdsVersion) -> Mmds {
        let config = MmdsConfig {
            version,
            ..MmdsConfig::default()
        };
        let mmds = Mmds::with_key(config, [1; 64]).unwrap();
        mmds.put(json!({"a": {"b": "c", "n": 1}, "latest": {"api": {"token": "t"}}}))
            .unwrap();
        mmds
    }

    /// The response to a request with these header fields.
    fn ask(mmds: &Mmds, line: &str, fields: &[&str], now: Duration) -> Response {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        match parse(text.as_bytes()) {
            Parsed::Whole(request, _) => mmds.answer(&request, now),
            other => panic!("{other:?}"),
        }
    }

    fn token(mmds: &Mmds) -> String {
        let response = ask(
            mmds,
            "PUT /latest/api/token",
            &["X-metadata-token-ttl-seconds: 10"],
            NOW,
        );
        assert_eq!(response.status, Status::Ok);
        let field = Some(("X-metadata-token-ttl-seconds", "10".to_owned()));
        assert_eq!(response.field, field);
        response.body
    }

    #[test]
    fn the_format_is_the_one_that_is_accepted() {
        let mmds = service(MmdsVersion::V1);
        let json = ["Accept: application/json"];
        let response = ask(&mmds, "GET /a", &json, NOW);
        assert_eq!(
            (response.body.as_str(), response.is_json),
            (r#"{"b":"c","n":1}"#, true)
        );
        for fields in [&[][..], &["Accept: */*"], &["Accept: text/plain"]] {
            let response = ask(&mmds, "GET /a", fields, NOW);
            assert_eq!((response.body.as_str(), response.is_json), ("b\nn", false));
        }
        assert_eq!(ask(&mmds, "GET /a/n", &json, NOW).body, "1");
        let number = ask(&mmds, "GET /a/n", &[], NOW);
        assert_eq!(number.status, Status::NotImplemented);
        assert_eq!(ask(&mmds, "GET /b", &json, NOW).status, Status::NotFound);
        let config = MmdsConfig {
            imds_compat: true,
            ..mmds.config()
        };
        mmds.set_config(config).unwrap();
        assert_eq!(ask(&mmds, "GET /a", &json, NOW).body, "b\nn");
    }

    #[test]
    fn version_2_tells_nothing_without_a_token_that_is_good() {
        let mmds = service(MmdsVersion::V2);
        let token = token(&mmds);
        let get = |field: &str, now| ask(&mmds, "GET /a/b", &[field], now);
        for name in ["X-metadata-token", "x-aws-ec2-metadata-token"] {
            let field = format!("{name}: {token}");
            assert_eq!(get(&field, NOW), Response::text(Status::Ok, "c"));
            let late = NOW + Duration::from_secs(10);
            assert_eq!(get(&field, late).status, Status::Unauthorized);
        }
        for field in ["Host: x", "X-metadata-token: ", "X-metadata-token: 00"] {
            assert_eq!(get(field, NOW).status, Status::Unauthorized);
        }
        let missing = ask(&mmds, "GET /none", &[], NOW);
        assert_eq!(missing.status, Status::Unauthorized);
    }

    #[test]
    fn version_1_does_not_look_at_tokens_but_makes_them() {
        let mmds = service(MmdsVersion::V1);
        token(&mmds);
        let field = ["X-metadata-token: nonsense"];
        assert_eq!(ask(&mmds, "GET /a/b", &field, NOW).body, "c");
    }

    #[test]
    fn tokens_are_made_only_for_those_who_ask_properly() {
        for version in [MmdsVersion::V1, MmdsVersion::V2] {
            let mmds = service(version);
            let put = |path: &str, fields: &[&str]| {
                ask(&mmds, &format!("PUT {path}"), fields, NOW).status
            };
            let path = "/latest/api/token";
            let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
            assert_eq!(put("//latest/api/token/", &[ttl]), Status::Ok);
            assert_eq!(
                put(path, &[ttl, "x-forwarded-for: 10.0.0.1"]),
                Status::BadRequest
            );
            assert_eq!(put("/latest/api", &[ttl]), Status::NotFound);
            assert_eq!(put(path, &[]), Status::BadRequest);
            for lifetime in ["0", "21601", "-1", "1.5", "", "x", "4294967296"] {
                let field = format!("X-metadata-token-ttl-seconds: {lifetime}");
                assert_eq!(put(path, &[&field]), Status::BadRequest, "{lifetime}");
            }
        }
    }

    #[test]
    fn other_methods_are_not_allowed() {
        for method in ["POST", "PATCH", "DELETE", "HEAD", "get"] {
            let response = ask(&service(MmdsVersion::V2), &format!("{method} /a"), &[], NOW);
            assert_eq!(response.status, Status::MethodNotAllowed);
            assert_eq!(response.field, Some(("Allow", "GET, PUT".to_owned())));
        }
    }
}
