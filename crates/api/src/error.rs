//! Why a request is refused.

use goldcrest_monitor::MmdsError;
use serde_json::json;

/// Why a request is refused, as its client is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No such method of such a path.
    #[error("there is no {method} of {path}")]
    Route {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// A request without what it must have.
    #[error("a {0} needs a body")]
    NoBody(&'static str),
    /// A request with what it must not have.
    #[error("a GET has no body")]
    Body,
    /// A body that is not what it should be.
    #[error("cannot read the body: {0}")]
    Json(#[from] serde_json::Error),
    /// A name with other characters.
    #[error("the id {0:?} has other characters than letters, digits and '_'")]
    Id(String),
    /// Names that differ.
    #[error("the id {path:?} of the path is not the id {body:?} of the body")]
    OtherId {
        /// That of the path.
        path: String,
        /// That of the body.
        body: String,
    },
    /// A body that is too long.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The most bytes that are possible.
        limit: usize,
    },
    /// A body that did not come in time.
    #[error("the body did not come within {seconds} seconds")]
    TooSlow {
        /// How long was waited for it.
        seconds: u64,
    },
    /// A connection that ended within a body, or a body that is not HTTP's.
    #[error("the body cannot be received: {0}")]
    Broken(String),
    /// What is possible before the machine is started only.
    #[error("{0} is not possible once the machine is started")]
    Started(&'static str),
    /// What is possible after the machine was started only.
    #[error("{0} is not possible before the machine is started")]
    NotStarted(&'static str),
    /// What is possible before anything is configured only.
    #[error("a snapshot is loaded into a machine of which nothing is configured; here {0} is")]
    Configured(&'static str),
    /// What is possible while the machine is paused only.
    #[error("a snapshot is made of a paused machine: pause it first (PATCH /vm)")]
    NotPaused,
    /// Metadata that cannot be.
    #[error(transparent)]
    Metadata(#[from] MmdsError),
    /// What cannot be, for a reason that is a sentence of its own.
    #[error("{0}")]
    Refused(String),
}

impl ApiError {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } | Self::Metadata(MmdsError::TooLarge { .. }) => 413,
            Self::TooSlow { .. } => 408,
            _ => 400,
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> String {
        json!({ "fault_message": self.to_string() }).to_string()
    }

    /// A reason that is a sentence of its own.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

/// Why a machine does not do what it is asked.
impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault.0)
    }
}

/// Why a machine does not do what it is asked: a line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    /// A reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// An error and what caused it, each once.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let cause = source.to_string();
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            next = source.source();
        }
        Self(text)
    }
}
