//! XChaCha20-Poly1305, and the nonces.

use chacha20poly1305::XNonce;
use chacha20poly1305::aead::AeadInOut;

use crate::Key;
use crate::header::ID_LEN;

/// Bytes by which what is encrypted is longer.
pub(crate) const TAG_LEN: usize = 16;

/// Bytes of a nonce.
const NONCE_LEN: usize = 24;
/// The first chunk's number that a nonce has no room for.
const MAX_NUMBER: u64 = 1 << 56;

/// The last byte of a nonce.
const MORE: u8 = 0;
const LAST: u8 = 1;
const HEADER: u8 = 2;

/// Encrypts a chunk's bytes in place, and appends the tag. Nothing if that is not possible.
pub(crate) fn encrypt(
    key: &Key,
    (id, number, last): (&[u8; ID_LEN], u64, bool),
    associated: &[u8],
    bytes: &mut Vec<u8>,
) -> Option<()> {
    let nonce = chunk_nonce(id, number, last)?;
    key.0.encrypt_in_place(&nonce, associated, bytes).ok()
}

/// Decrypts them, and takes the tag off. Nothing if they are not what was encrypted.
pub(crate) fn decrypt(
    key: &Key,
    (id, number, last): (&[u8; ID_LEN], u64, bool),
    associated: &[u8],
    bytes: &mut Vec<u8>,
) -> Option<()> {
    let nonce = chunk_nonce(id, number, last)?;
    key.0.decrypt_in_place(&nonce, associated, bytes).ok()
}

/// The tag of no bytes, by which a header tells its key.
pub(crate) fn tag(key: &Key, id: &[u8; ID_LEN], associated: &[u8]) -> Option<[u8; TAG_LEN]> {
    let nonce = nonce(id, u64::MAX, HEADER);
    let mut tag = Vec::with_capacity(TAG_LEN);
    key.0.encrypt_in_place(&nonce, associated, &mut tag).ok()?;
    tag.first_chunk().copied()
}

fn chunk_nonce(id: &[u8; ID_LEN], number: u64, last: bool) -> Option<XNonce> {
    let kind = if last { LAST } else { MORE };
    (number < MAX_NUMBER).then(|| nonce(id, number, kind))
}

/// Identity, number, kind.
fn nonce(id: &[u8; ID_LEN], number: u64, kind: u8) -> XNonce {
    let mut bytes = [0; NONCE_LEN];
    let number = number.to_le_bytes();
    let parts = id.iter().chain(number.iter().take(7)).chain([&kind]);
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = *from;
    }
    bytes.into()
}
