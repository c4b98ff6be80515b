//! What is asked for: a medium, with what it is decrypted with if it is encrypted.

use ring::digest::{Context, SHA256};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;

use crate::{
    Error,
    attachment::{EncryptedFile, Secrets},
    key::{ScannerKey, Sealed},
};

/// A medium that somebody wants to have.
pub struct Target {
    pub(crate) server: OwnedServerName,
    pub(crate) id: String,
    pub(crate) secrets: Option<Secrets>,
}

/// The body of a request for an encrypted medium.
#[derive(Deserialize)]
struct Body {
    file: Option<EncryptedFile>,
    encrypted_body: Option<Sealed>,
}

#[derive(Deserialize)]
struct Opened {
    file: EncryptedFile,
}

impl Target {
    /// A medium as it was uploaded.
    pub fn in_clear(server: &ServerName, id: &str) -> Self {
        Self { server: server.to_owned(), id: id.to_owned(), secrets: None }
    }

    /// Its server.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads the body of a request: `{"file": …}`, or `{"encrypted_body": …}` with that encrypted for the key.
    pub(crate) fn read(body: &[u8], key: &ScannerKey) -> Result<Self, Error> {
        let body: Body = serde_json::from_slice(body).map_err(malformed)?;
        let file = match (body.file, body.encrypted_body) {
            (Some(file), None) => file,
            (None, Some(sealed)) => return Self::sealed(&sealed, key).map_err(|_| Error::BadDecryption),
            _ => return Err(Error::Malformed("either `file` or `encrypted_body` is needed".to_owned())),
        };
        Self::of(&file)
    }

    /// Whatever is wrong below the encryption is one and the same error: it does not prove who has encrypted, and whoever
    /// has changed a recorded body must not learn how far it was read.
    fn sealed(sealed: &Sealed, key: &ScannerKey) -> Result<Self, Error> {
        let opened = serde_json::from_slice::<Opened>(&key.open(sealed)?).map_err(malformed)?;
        Self::of(&opened.file)
    }

    fn of(file: &EncryptedFile) -> Result<Self, Error> {
        let parts = file.url.parts().map_err(|error| Error::Malformed(error.to_string()))?;
        let (server, id) = (parts.0.to_owned(), parts.1.to_owned());
        Ok(Self { server, id, secrets: Some(Secrets::try_from(file)?) })
    }

    /// What tells this from anything else that can be asked for.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        let secrets = self.secrets.as_ref().map(Secrets::bytes).unwrap_or_default();
        for part in [self.server.as_bytes(), self.id.as_bytes()].into_iter().chain(secrets) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        digest
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn malformed(error: serde_json::Error) -> Error {
    // Without what was read: it may be a key.
    let what = if error.is_data() { "not the fields that are needed" } else { "not JSON" };
    Error::Malformed(format!("{what}, at column {}", error.column()))
}
