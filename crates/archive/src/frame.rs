//! A chunk's Zstandard frame (RFC 8878).

use ruzstd::decoding::FrameDecoder;
use ruzstd::encoding::{CompressionLevel, compress};

use crate::MAX_CHUNK;

/// The most bytes of a frame: what cannot be compressed is a little longer than before.
pub(crate) const MAX_FRAME: usize = MAX_CHUNK + 4096;

/// Compresses.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() / 2);
    compress(bytes, &mut frame, CompressionLevel::Fastest);
    frame
}

/// Unpacks frames that must have exactly as many bytes as `to` has.
pub(crate) fn unpack(
    decoder: &mut FrameDecoder,
    frame: &[u8],
    to: &mut [u8],
) -> Result<(), String> {
    let expected = to.len();
    match decoder.decode_all(frame, to) {
        Ok(len) if len == expected => Ok(()),
        Ok(len) => Err(format!("has {len} bytes, should have {expected}")),
        Err(error) => Err(format!("cannot be decompressed: {error}")),
    }
}

/// A decoder that takes no more memory than a chunk needs.
pub(crate) fn decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_CHUNK as u64);
    decoder
}
