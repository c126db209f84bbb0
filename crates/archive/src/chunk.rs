//! What stands before a chunk's stored bytes.

use crate::MAX_CHUNK;
use crate::cipher::TAG_LEN;
use crate::frame::MAX_FRAME;
use crate::header::Header;

/// Bytes before the stored ones.
pub(crate) const HEAD_LEN: usize = 16;

/// How a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Stored bytes, with the tag.
    pub(crate) stored: u32,
    /// Bytes that they unpack to.
    pub(crate) len: u32,
    /// Whether it is the last.
    pub(crate) last: bool,
    /// The checksum, of chunks that are not encrypted.
    pub(crate) sum: u32,
}

impl Head {
    /// Its bytes.
    pub(crate) fn to_bytes(self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        let fields = [self.stored, self.len, u32::from(self.last), self.sum];
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (to, field) in words.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
        bytes
    }

    /// What the bytes say, if it can be.
    pub(crate) fn parse(bytes: &[u8; HEAD_LEN]) -> Result<Self, String> {
        let (words, _) = bytes.as_chunks::<4>();
        let mut fields = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut next = || fields.next().unwrap_or_default();
        let (stored, len, last, sum) = (next(), next(), next(), next());
        let bounds = [
            ("stored bytes", stored, MAX_FRAME + TAG_LEN),
            ("bytes", len, MAX_CHUNK),
            ("as mark of the last one", last, 1),
        ];
        for (what, value, most) in bounds {
            if usize::try_from(value).map_or(true, |value| value > most) {
                return Err(format!("has {value} {what}, must be at most {most}"));
            }
        }
        Ok(Self {
            stored,
            len,
            last: last == 1,
            sum,
        })
    }

    /// The checksum of the chunk with this number.
    pub(crate) fn sum_of(self, header: &Header, number: u64, stored: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        // Not the header, which ends in its own checksum: behind that, all headers are alike to a CRC.
        sum.update(&header.id());
        sum.update(&number.to_le_bytes());
        let bytes = self.to_bytes();
        sum.update(bytes.first_chunk::<12>().map_or(&[], |fields| fields));
        sum.update(stored);
        sum.finalize()
    }

    /// What is associated with the encrypted bytes.
    pub(crate) fn associated(self, header: &Header) -> Vec<u8> {
        [&header.0[..], &self.to_bytes()].concat()
    }
}
