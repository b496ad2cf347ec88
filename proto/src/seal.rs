//! Secrets at rest: AES-256-GCM under `SECRETS_KEY`, with the row's identity as associated data.
//!
//! A sealed value is: version byte 1, 12-byte nonce, ciphertext with tag. Values travel sealed to the
//! proxies, which open them in memory; nothing in clear reaches a table, a disk or a log.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::RngCore;
use std::fmt;
use std::sync::Arc;

const VERSION: u8 = 1;
const NONCE: usize = 12;

/// Why a value could not be sealed or opened. Says nothing about the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The configured key is not 64 hex digits.
    #[error("the secrets key must be 64 hexadecimal digits (32 bytes)")]
    Key,
    /// The sealed value is too short or of an unknown version.
    #[error("the sealed value has an unknown form")]
    Form,
    /// It was sealed under another key, for another row, or changed since.
    #[error("the sealed value does not open under this secrets key")]
    Open,
    /// The cipher refused the input.
    #[error("the value could not be sealed")]
    Seal,
}

/// The key that seals and opens. Cheap to clone; prints as nothing.
#[derive(Clone)]
pub struct Sealer(Arc<Aes256Gcm>);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let bytes = hex::decode(text.trim()).map_err(|_| SealError::Key)?;
        let cipher = Aes256Gcm::new_from_slice(&bytes).map_err(|_| SealError::Key)?;
        Ok(Self(Arc::new(cipher)))
    }

    /// Seals `clear` for the row named by `identity`.
    pub fn seal(&self, clear: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: clear, aad: identity.as_bytes() };
        let sealed = self.0.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| SealError::Seal)?;
        Ok([&[VERSION], nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Sealer::seal`] made for the same identity.
    pub fn open(&self, sealed: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Form)?;
        if version != VERSION || rest.len() < NONCE {
            return Err(SealError::Form);
        }
        let (nonce, msg) = rest.split_at(NONCE);
        let payload = Payload { msg, aad: identity.as_bytes() };
        self.0.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| SealError::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_its_row_and_key() {
        let sealer = Sealer::from_hex(&"0f".repeat(32)).expect("key");
        let other = Sealer::from_hex(&"1f".repeat(32)).expect("key");
        let sealed = sealer.seal(b"sk-canary", "provider:1").expect("seal");
        assert!(!sealed.windows(9).any(|w| w == b"sk-canary"));
        assert_eq!(sealer.open(&sealed, "provider:1").as_deref(), Ok(b"sk-canary".as_slice()));
        assert_eq!(sealer.open(&sealed, "provider:2"), Err(SealError::Open));
        assert_eq!(other.open(&sealed, "provider:1"), Err(SealError::Open));
        assert_eq!(sealer.open(&[9; 40], "provider:1"), Err(SealError::Form));
        assert_eq!(sealer.open(&[], "provider:1"), Err(SealError::Form));
        assert!(matches!(Sealer::from_hex("12"), Err(SealError::Key)));
    }
}
