//! The header: what an archive is, and which.

use crate::cipher;
use crate::{ArchiveError, Key};

/// What an archive begins with.
pub const MAGIC: [u8; 8] = *b"GCARCHIV";

const VERSION: u32 = 1;
/// Not encrypted.
const PLAIN: u32 = 0;
/// XChaCha20-Poly1305.
const XCHACHA20_POLY1305: u32 = 1;

/// Bytes of the header.
pub(crate) const LEN: usize = 52;
/// Bytes that are associated data of the tag in it.
const TAGGED: usize = 32;
/// Bytes that have a checksum.
const SUMMED: usize = LEN - 4;
/// Bytes of the identity.
pub(crate) const ID_LEN: usize = 16;

/// Whether bytes are the beginning of an archive, and if so, whether it is encrypted.
pub fn is_archive(bytes: &[u8]) -> Option<bool> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*rest.first_chunk()?) != PLAIN)
}

/// A header, as it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header(pub(crate) [u8; LEN]);

impl Header {
    /// That of a new archive.
    pub(crate) fn new(id: [u8; ID_LEN], key: Option<&Key>) -> Result<Self, ArchiveError> {
        let cipher = key.map_or(PLAIN, |_| XCHACHA20_POLY1305);
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(cipher.to_le_bytes());
        bytes.extend(id);
        let tag = match key {
            Some(key) => cipher::tag(key, &id, &bytes).ok_or(ArchiveError::Encrypt(0))?,
            None => [0; cipher::TAG_LEN],
        };
        bytes.extend(tag);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut header = [0; LEN];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(Self(header))
    }

    /// Looks whether it is one, and whether the key is its.
    pub(crate) fn check(&self, key: Option<&Key>) -> Result<(), ArchiveError> {
        if !self.0.starts_with(&MAGIC) {
            return Err(ArchiveError::Magic);
        }
        let (version, cipher) = (self.number(8), self.number(12));
        let (found, expected) = (self.number(SUMMED), crc32fast::hash(self.to(SUMMED)));
        if version != VERSION {
            return Err(ArchiveError::Version {
                found: version,
                expected: VERSION,
            });
        }
        if found != expected {
            return Err(ArchiveError::Header { found, expected });
        }
        match (cipher, key) {
            (PLAIN, None) => Ok(()),
            (PLAIN, Some(_)) => Err(ArchiveError::NotEncrypted),
            (XCHACHA20_POLY1305, None) => Err(ArchiveError::KeyNeeded),
            (XCHACHA20_POLY1305, Some(key)) => {
                let tag = cipher::tag(key, &self.id(), self.to(TAGGED));
                match tag.is_some_and(|tag| self.to(SUMMED).ends_with(&tag)) {
                    true => Ok(()),
                    false => Err(ArchiveError::WrongKey),
                }
            }
            (other, _) => Err(ArchiveError::Cipher(other)),
        }
    }

    /// The archive's identity.
    pub(crate) fn id(&self) -> [u8; ID_LEN] {
        let id = self.0.get(16..).and_then(|rest| rest.first_chunk());
        id.copied().unwrap_or_default()
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    fn to(&self, len: usize) -> &[u8] {
        self.0.get(..len).unwrap_or_default()
    }
}
