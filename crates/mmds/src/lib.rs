//! The metadata service of a microVM: a JSON document that the guest reads by HTTP, at an address of its link that leads
//! nowhere else. The guest needs no network for it, and no driver but that of its network card.
//!
//! It answers as the service of Firecracker does ("MMDS"), which in turn answers much like that of Amazon's EC2: so
//! cloud-init and the like find what they look for.
//!
//! ```
//! use goldcrest_mmds::{Endpoint, Mmds, MmdsConfig};
//! use goldcrest_usernet::{RxOffload, TxOffload};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! let mmds = Arc::new(Mmds::new(MmdsConfig::default())?);
//! mmds.put(serde_json::json!({ "latest": { "meta-data": { "local-hostname": "wren" } } }))?;
//! mmds.patch(&serde_json::json!({ "latest": { "meta-data": { "local-hostname": "dipper" } } }))?;
//! assert_eq!(mmds.get()["latest"]["meta-data"]["local-hostname"], "dipper");
//!
//! // On a link. Who has 169.254.169.254? Tell 10.0.2.15.
//! let mut endpoint = Endpoint::new(mmds)?;
//! let mac = [2, 0, 0, 0, 0, 1];
//! let mut frame = vec![0xff; 6];
//! frame.extend(mac);
//! frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
//! frame.extend(mac);
//! frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254]);
//! assert!(endpoint.wants(&frame));
//! let now = Duration::from_secs(1);
//! endpoint.send(frame.len(), &mut &frame[..], TxOffload::default(), now);
//!
//! let mut answer = Vec::new();
//! endpoint.receive(1514, RxOffload::default(), &mut answer, now).expect("an answer");
//! assert_eq!(answer[28..32], [169, 254, 169, 254]);
//! # Ok::<(), goldcrest_mmds::MmdsError>(())
//! ```
//!
//! # What the guest reads
//!
//! `GET` of a path tells the part of the document that the path leads to, as a JSON pointer (RFC 6901) does; slashes at
//! the end and slashes in a row do not count. With `Accept: application/json` it is told as JSON. Otherwise it is text: a
//! string is told as it is; of an object its keys are, one on a line, those of objects with a slash behind. Text has no
//! form for other values.
//!
//! `PUT` of `/latest/api/token`, with the seconds that it is to live in `X-metadata-token-ttl-seconds` (1 to 21600), makes
//! a token. By [version 2](MmdsVersion::V2), a `GET` must have one in `X-metadata-token`. Either field can be named as
//! Amazon's EC2 does, `X-aws-ec2-metadata-token`. A request that was passed on for somebody else, by its
//! `X-Forwarded-For`, gets no token.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request is malformed; no lifetime, or one that cannot be; a token for somebody else |
//! | 401 | version 2, and no token, or none that is good |
//! | 404 | there is nothing at that path, or nothing was put yet |
//! | 405 | another method |
//! | 413, 431 | a request of more than 8 KiB, or of more than 64 header fields |
//! | 501 | text, and neither a string nor an object; a transfer coding |
//!
//! # How it is reached
//!
//! [`Endpoint`] is the service on one link: who runs a network card gives it the frames that [it
//! wants](Endpoint::wants), and takes its frames for the guest. ARP, TCP and all else that the guest can say are those of
//! `goldcrest-usernet`, of which the service is the host: a connection ends in [`Mmds`] instead of in a socket.
//!
//! # A hostile guest
//!
//! A token says when it ends and is signed (HMAC-SHA-256), with a key that no other service has; nothing is kept of it. A
//! connection holds one request of 8 KiB and one response, there are 32, and one more breaks the one that was not used
//! for longest. How long a response is, the limit of the document says. Connections that are over and that the guest does
//! not close hold nothing, and there are 256 at most; then it has to close some.
//!
//! A token protects a guest from its own programs that pass on requests of strangers. It does not protect the document
//! from what runs in the guest.

mod answer;
mod config;
mod connection;
mod endpoint;
mod error;
mod request;
mod response;
mod service;
mod store;
mod token;

pub use config::{DEFAULT_ADDRESS, DEFAULT_LIMIT, MAX_LIMIT, MmdsConfig, MmdsVersion};
pub use endpoint::{Endpoint, HEAD};
pub use error::MmdsError;
pub use store::Mmds;
