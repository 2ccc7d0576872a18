//! The key that seals what must be readable again: v2 keys, which a hash cannot serve.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;

use super::StoreError;
use super::folder::Folder;
use crate::account::V2Key;

const KEY_LEN: usize = 32;

/// The 32 bytes of `instance.key`, ready to seal and unseal.
pub(super) struct InstanceKey {
    aead: RandomizedNonceKey,
}

/// The two v2 keys of one API key.
pub(super) struct V2Pair {
    pub(super) request: V2Key,
    pub(super) answer: V2Key,
}

impl InstanceKey {
    /// Reads the file; `None` when there is none.
    pub(super) fn load(folder: &Folder) -> Result<Option<Self>, StoreError> {
        let path = folder.instance_key();
        let unusable = |source| StoreError::File { path: folder.instance_key(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unusable)?,
        };
        let mode = file.metadata().map_err(unusable)?.mode() & 0o777;
        if mode & 0o077 != 0 && !Folder::is_guarded(&path) {
            return Err(StoreError::InstanceKeyReadable { path, mode });
        }
        let mut bytes = Vec::with_capacity(KEY_LEN + 1);
        file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unusable)?;
        if bytes.len() != KEY_LEN {
            return Err(StoreError::InstanceKeyWrong { path });
        }
        Self::new(&bytes).map(Some)
    }

    /// Makes the file.
    pub(super) fn create(folder: &Folder) -> Result<Self, StoreError> {
        let mut bytes = [0; KEY_LEN];
        rand::fill(&mut bytes).map_err(|_| StoreError::NoRandomness)?;
        let path = folder.instance_key();
        folder.write_whole(&path, &bytes).map_err(|source| StoreError::File { path, source })?;
        Self::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Result<Self, StoreError> {
        let aead = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| StoreError::NoRandomness)?;
        Ok(Self { aead })
    }

    /// Nonce, both keys encrypted, tag; bound to the public id, so that rows cannot be exchanged.
    pub(super) fn seal(&self, public_id: u64, keys: &V2Pair) -> Result<Vec<u8>, StoreError> {
        let mut text = [keys.request.0, keys.answer.0].concat();
        let nonce = self
            .aead
            .seal_in_place_append_tag(Aad::from(public_id.to_be_bytes()), &mut text)
            .map_err(|_| StoreError::NoRandomness)?;
        Ok([&nonce.as_ref()[..], &text].concat())
    }

    /// The two keys, or `None` when this is not what was sealed under this key for that id.
    pub(super) fn unseal(&self, public_id: u64, sealed: &[u8]) -> Option<V2Pair> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let keys = self.aead.open_in_place(nonce, Aad::from(public_id.to_be_bytes()), &mut text).ok()?;
        let (request, answer) = keys.split_at_checked(16)?;
        Some(V2Pair { request: V2Key(request.try_into().ok()?), answer: V2Key(answer.try_into().ok()?) })
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceKey(redacted)")
    }
}
