//! Tokens of sessions.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::MmdsError;

/// How long a token can live, in seconds.
pub(crate) const LIFETIMES: RangeInclusive<u32> = 1..=21_600;

/// Bytes of a token's end and number, and of its tag: HMAC-SHA-256, of which the left half is enough (RFC 2104 §5).
const CLAIM: usize = 16;
const TAG: usize = 16;
/// Each byte is two digits.
const DIGITS: usize = 2 * (CLAIM + TAG);

/// Who makes tokens, and knows his own again.
///
/// A token says when it ends, and is signed. So nothing is kept of it, however many the guest asks for.
pub(crate) struct Authority {
    key: [u8; 64],
    issued: AtomicU64,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, MmdsError> {
        let mut key = [0; 64];
        getrandom::fill(&mut key).map_err(|error| MmdsError::Random(error.into()))?;
        Ok(Self::with_key(key))
    }

    pub(crate) fn with_key(key: [u8; 64]) -> Self {
        Self {
            key,
            issued: AtomicU64::new(0),
        }
    }

    /// A token that lives for so many seconds from `now` on; none if that is too short or too long.
    pub(crate) fn issue(&self, seconds: u32, now: Duration) -> Option<String> {
        if !LIFETIMES.contains(&seconds) {
            return None;
        }
        let end = millis(now.saturating_add(Duration::from_secs(seconds.into())));
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let claim = u128::from(end) << 64 | u128::from(number);
        let claim: [u8; CLAIM] = claim.to_be_bytes();
        let tag = self.mac(&claim).finalize().into_bytes();
        let mut token = String::with_capacity(DIGITS);
        for byte in claim.iter().chain(tag.iter().take(TAG)) {
            // A string takes all.
            let _ = write!(token, "{byte:02x}");
        }
        Some(token)
    }

    /// Whether it is a token of ours that has not ended `now`.
    pub(crate) fn is_valid(&self, token: &[u8], now: Duration) -> bool {
        let Some((claim, tag)) = decode(token) else {
            return false;
        };
        // In a time that does not tell how much of it is right.
        let is_ours = self.mac(&claim).verify_truncated_left(&tag).is_ok();
        let [a, b, c, d, e, f, g, h, ..] = claim;
        is_ours && millis(now) < u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn mac(&self, claim: &[u8; CLAIM]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(claim);
        mac
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn decode(token: &[u8]) -> Option<([u8; CLAIM], [u8; TAG])> {
    let digits: &[u8; DIGITS] = token.try_into().ok()?;
    let mut bytes = [0; CLAIM + TAG];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in digits {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    let (claim, tag) = bytes.split_first_chunk()?;
    Some((*claim, tag.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn authority() -> Authority {
        Authority::with_key([7; 64])
    }

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let authority = authority();
        let token = authority.issue(60, NOW).unwrap();
        let after = |millis| NOW + Duration::from_millis(millis);
        assert!(authority.is_valid(token.as_bytes(), NOW));
        assert!(authority.is_valid(token.as_bytes(), after(59_999)));
        assert!(!authority.is_valid(token.as_bytes(), after(60_000)));
        assert_ne!(authority.issue(60, NOW).unwrap(), token);
    }

    #[test]
    fn lifetimes_have_limits() {
        for (seconds, is_possible) in [(0, false), (1, true), (21_600, true), (21_601, false)] {
            assert_eq!(authority().issue(seconds, NOW).is_some(), is_possible);
        }
    }

    #[test]
    fn what_is_changed_in_any_bit_is_no_token() {
        let authority = authority();
        let token = authority.issue(60, NOW).unwrap().into_bytes();
        for at in 0..token.len() {
            let mut other = token.clone();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert!(!authority.is_valid(&other, NOW), "digit {at}");
            other[at] = b'g';
            assert!(!authority.is_valid(&other, NOW));
        }
        for len in 0..token.len() {
            assert!(!authority.is_valid(&token[..len], NOW));
        }
        let long = [&token[..], b"0"].concat();
        assert!(!authority.is_valid(&long, NOW));
    }

    #[test]
    fn another_key_is_another_authority() {
        let token = Authority::with_key([8; 64]).issue(60, NOW).unwrap();
        assert!(!authority().is_valid(token.as_bytes(), NOW));
        let (a, b) = (Authority::new().unwrap(), Authority::new().unwrap());
        let token = a.issue(60, NOW).unwrap();
        assert!(a.is_valid(token.as_bytes(), NOW) && !b.is_valid(token.as_bytes(), NOW));
    }
}
