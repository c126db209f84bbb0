//! What can go wrong.

/// Why a text is not a rate, or a saved state not one of this limiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// A rate or a burst that is neither bytes nor operations.
    #[error(
        "{0:?} is not a rate; write for example 10M, 500ops, or with bursts 10M/20M+500ops/1000"
    )]
    Parse(String),
    /// A rate or a burst of nothing, with which nothing would ever move.
    #[error("rate {0:?}: 0 is not possible; leave the rate out to have no limit")]
    Zero(String),
    /// Two rates of one kind.
    #[error("rate {text:?} limits {what} twice; write for example 10M+500ops")]
    Twice {
        /// The whole text.
        text: String,
        /// Bytes or operations.
        what: &'static str,
    },
    /// A saved state of a limiter that limits something else.
    #[error("saved rate limiter: {what} are limited in one of state and configuration only")]
    Mismatch {
        /// Bytes or operations.
        what: &'static str,
    },
    /// A saved bucket that is fuller than full, or deeper in debt than one request can bring it.
    #[error("saved rate limiter: {what} has {level} nano-tokens, not {min} to {max}")]
    Level {
        /// Bytes or operations.
        what: &'static str,
        /// What was saved.
        level: i128,
        /// The deepest debt.
        min: i128,
        /// A full bucket.
        max: i128,
    },
}
