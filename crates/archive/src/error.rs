//! Why an archive was not made or not believed, and why a key is none.

use std::io;
use std::path::PathBuf;

/// Why an archive was not made, or not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes do not begin with the magic number.
    #[error("not an archive: does not begin with GCARCHIV")]
    Magic,
    /// A layout that this build does not know.
    #[error("archive has version {found}, this build reads version {expected}")]
    Version {
        /// What the archive says.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// A cipher that this build does not know.
    #[error("archive is encrypted by cipher {0}, this build knows 1 (XChaCha20-Poly1305)")]
    Cipher(u32),
    /// The header is not what was written.
    #[error(
        "archive is damaged: checksum of its header is {found:#010x}, should be {expected:#010x}"
    )]
    Header {
        /// What the archive says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// It is encrypted, and no key was given.
    #[error("archive is encrypted: its key is needed")]
    KeyNeeded,
    /// A key was given, and it is not encrypted: whoever made it need not have had the key.
    #[error("archive is not encrypted, and a key was given")]
    NotEncrypted,
    /// It was encrypted with another key.
    #[error("archive was encrypted with another key")]
    WrongKey,
    /// It ends before its last chunk does.
    #[error("archive is cut off in chunk {0}")]
    Truncated(u64),
    /// A chunk that nobody wrote like that.
    #[error("archive is damaged in chunk {chunk}: {what}")]
    Chunk {
        /// Its number, from 0 on.
        chunk: u64,
        /// What is wrong with it.
        what: String,
    },
    /// There are other bytes behind those that were asked for.
    #[error("archive has more bytes than it should")]
    Trailing,
    /// There are fewer bytes than were asked for.
    #[error("archive has fewer bytes than it should")]
    TooShort,
    /// More chunks than can be counted.
    #[error("archive is too large")]
    TooLarge,
    /// It could not be encrypted.
    #[error("cannot encrypt chunk {0}")]
    Encrypt(u64),
    /// It could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// There are no random numbers.
    #[error("cannot get random numbers")]
    Random(#[source] io::Error),
}

/// Why a key file gives no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has something else than a key.
    #[error(
        "key file {}: must have 32 bytes, or 64 hexadecimal digits: make one by (umask 077; head -c 32 /dev/urandom > {})",
        path.display(), path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Others can read or write it.
    #[error("key file {} can be read or written by everyone (mode {mode:o}): chmod 600 it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}
