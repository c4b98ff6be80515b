//! Encrypted attachments (client-server API, "Extensions to `m.room.message` msgtypes"): what clients say of them.

use aes::cipher::KeyIvInit;
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ruma::OwnedMxcUri;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Error, source::Cipher};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// The `file` of a message, as far as it is needed.
#[derive(Deserialize)]
pub(crate) struct EncryptedFile {
    pub(crate) url: OwnedMxcUri,
    key: Key,
    iv: String,
    hashes: Hashes,
    v: String,
}

#[derive(Deserialize)]
struct Key {
    alg: String,
    k: String,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: String,
}

/// What an attachment is decrypted with.
pub(crate) struct Secrets {
    key: Zeroizing<[u8; 32]>,
    iv: [u8; 16],
    /// SHA-256 of the encrypted bytes.
    pub(crate) sha256: [u8; 32],
}

impl Secrets {
    /// A cipher at the beginning of the file.
    pub(crate) fn cipher(&self) -> Cipher {
        Cipher::new((&*self.key).into(), (&self.iv).into())
    }

    /// Everything, for telling one from another.
    pub(crate) fn bytes(&self) -> [&[u8]; 3] {
        [&*self.key, &self.iv, &self.sha256]
    }
}

impl TryFrom<&EncryptedFile> for Secrets {
    type Error = Error;

    fn try_from(file: &EncryptedFile) -> Result<Self, Error> {
        if file.v != "v2" || file.key.alg != "A256CTR" {
            return Err(Error::FailedToDecrypt("only A256CTR of version v2 is known"));
        }
        let wrong = |what| Error::FailedToDecrypt(what);
        Ok(Self {
            key: Zeroizing::new(fixed(&BASE64_URL, &file.key.k).ok_or(wrong("`key.k` is no key"))?),
            iv: fixed(&BASE64, &file.iv).ok_or(wrong("`iv` is no counter block"))?,
            sha256: fixed(&BASE64, &file.hashes.sha256).ok_or(wrong("`hashes.sha256` is no hash"))?,
        })
    }
}

/// Exactly so many bytes.
pub(crate) fn fixed<const N: usize>(alphabet: &GeneralPurpose, text: &str) -> Option<[u8; N]> {
    Zeroizing::new(alphabet.decode(text).ok()?).as_slice().try_into().ok()
}
