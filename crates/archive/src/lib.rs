//! A stream of bytes in compressed and, if wanted, encrypted chunks: what a snapshot is packed into.
//!
//! [`Writer`] makes an archive of the bytes that it is given, [`Reader`] gives them back, both one chunk after the other,
//! so that neither needs to seek: an archive may come through a pipe.
//!
//! ```
//! use goldcrest_archive::{Key, Reader, Writer};
//!
//! let key = Key::new(&[7; 32]);
//! let mut writer = Writer::new(Vec::new(), Some(&key))?;
//! writer.put(b"many bytes")?;
//! let archive = writer.finish()?;
//!
//! let mut reader = Reader::new(&archive[..], Some(&key))?;
//! let mut bytes = [0; 10];
//! reader.take(&mut bytes)?;
//! reader.finish()?;
//! assert_eq!(&bytes, b"many bytes");
//! # Ok::<(), goldcrest_archive::ArchiveError>(())
//! ```
//!
//! # Format
//!
//! A header of 52 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GCARCHIV` |
//! | 4 | version: 1 |
//! | 4 | 0 if it is not encrypted, 1 for XChaCha20-Poly1305 |
//! | 16 | identity: random bytes |
//! | 16 | by which the key is known to be the right one: the tag of nothing, with the 32 bytes before as associated data; zeros if there is none |
//! | 4 | CRC-32 (IEEE) of all before |
//!
//! Then chunks, each of 16 bytes and its stored bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | number of stored bytes |
//! | 4 | number of bytes that they unpack to: at most 1 MiB |
//! | 4 | 1 for the last chunk, 0 for others |
//! | 4 | CRC-32 of the identity, the chunk's number (8 bytes), the 12 bytes before, and the stored bytes; 0 if they are encrypted |
//! | n | a Zstandard frame (RFC 8878) whose window is 1 MiB at most; if it is encrypted, 16 bytes of tag follow |
//!
//! Numbers are little-endian, chunks are counted from 0. Nothing follows the last chunk.
//!
//! # Encryption
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), in the manner of the STREAM construction: a chunk's nonce of 24 bytes is the
//! archive's identity, the chunk's number (7 bytes), and 1 for the last chunk, 0 for others (2, and 0xff seven times before
//! it, for the tag in the header); associated data is the header and the chunk's 16 bytes. So chunks cannot be
//! changed, exchanged, dropped or put into another archive, and an archive cannot be cut off, without that being
//! found. What is in the archive is hidden but for its size.
//!
//! # Hostile input
//!
//! No more than a chunk is in memory at a time, whatever an archive says; a frame that has more or fewer bytes than its chunk
//! says is refused. Without a key the checksums find accidents, not forgery.

mod chunk;
mod cipher;
mod error;
mod frame;
mod header;
mod key;
mod reader;
mod writer;

pub use error::{ArchiveError, KeyError};
pub use header::{MAGIC, is_archive};
pub use key::Key;
pub use reader::Reader;
pub use writer::Writer;

/// The most bytes that a chunk unpacks to.
pub const MAX_CHUNK: usize = 1 << 20;
