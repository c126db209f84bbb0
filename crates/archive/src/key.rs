//! Keys, and the files that they are in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chacha20poly1305::{KeyInit, XChaCha20Poly1305};

use crate::KeyError;

/// Bytes of a key.
const LEN: usize = 32;
/// Bytes of one in hexadecimal digits.
const HEX_LEN: usize = 2 * LEN;
/// What everyone may do to a file.
const EVERYONE: u32 = 0o007;

/// What an archive is encrypted with: 32 bytes that nobody else knows.
pub struct Key(pub(crate) XChaCha20Poly1305);

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; LEN]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }

    /// Reads a key from a file: 32 bytes, or 64 hexadecimal digits, behind which a line may end. A pipe will do.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it has anything else, cannot be read, or is a regular file that everyone can read or write.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let cannot_read = |source: io::Error| KeyError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        let mode = metadata.mode() & 0o777;
        if metadata.is_file() && mode & EVERYONE != 0 {
            let path = path.to_owned();
            return Err(KeyError::Exposed { path, mode });
        }
        let mut bytes = Vec::with_capacity(HEX_LEN + 3);
        let limit = HEX_LEN as u64 + 3;
        let read = file.take(limit).read_to_end(&mut bytes);
        read.map_err(cannot_read)?;
        Self::parse(&bytes).ok_or_else(|| KeyError::NoKey {
            path: path.to_owned(),
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if let Ok(bytes) = <&[u8; LEN]>::try_from(bytes) {
            return Some(Self::new(bytes));
        }
        let digits = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        let (pairs, rest) = digits.as_chunks::<2>();
        if digits.len() != HEX_LEN || !rest.is_empty() {
            return None;
        }
        let mut key = [0; LEN];
        for (byte, [high, low]) in key.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self::new(&key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Reader, Writer};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn bytes_and_digits_are_the_same_key() {
        let written = file(&[0xa7; 32], 0o600);
        let key = Key::read(written.path()).unwrap();
        let archive = Writer::new(Vec::new(), Some(&key)).unwrap();
        let archive = archive.finish().unwrap();
        for text in [
            "a7".repeat(32),
            "A7".repeat(32) + "\n",
            "a7".repeat(32) + "\r\n",
        ] {
            let key = Key::read(file(text.as_bytes(), 0o640).path()).unwrap();
            assert!(Reader::new(&archive[..], Some(&key)).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_how_to_make_one() {
        for bytes in [
            &[][..],
            &[7; 31],
            &[7; 33],
            &[b'g'; 64],
            &[b'a'; 63],
            &[b'a'; 66],
        ] {
            let error = Key::read(file(bytes, 0o600).path())
                .unwrap_err()
                .to_string();
            assert!(error.contains("head -c 32 /dev/urandom"), "{error}");
        }
        assert!(matches!(
            Key::read(Path::new("/dev/zero")),
            Err(KeyError::NoKey { .. })
        ));
        assert!(matches!(
            Key::read(Path::new("/proc/nowhere")),
            Err(KeyError::Read { .. })
        ));
    }

    #[test]
    fn a_file_that_everyone_can_read_or_write_is_refused() {
        for mode in [0o604, 0o602, 0o644] {
            let error = Key::read(file(&[1; 32], mode).path()).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode: found, .. } if found == mode));
        }
    }
}
