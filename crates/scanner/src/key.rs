//! The key that clients encrypt for, so that proxies on the way do not see the keys of files. It lies in a file of its own;
//! whoever removes the file and starts the server again gets another key.
//!
//! The scheme is that of libolm's `PkEncryption`, which key backups use as well (client-server API, "Backup algorithm:
//! `m.megolm_backup.v1.curve25519-aes-sha2`").

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aes::{
    Aes256,
    cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7},
};
use base64::Engine;
use chappe_world::World;
use ring::{hkdf, hmac};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    Error,
    attachment::{BASE64, fixed},
};

/// Bytes of the authentication code that are sent.
const MAC: usize = 8;

/// JSON that was encrypted for the key, all in Base64.
#[derive(Deserialize)]
pub(crate) struct Sealed {
    ciphertext: String,
    mac: String,
    ephemeral: String,
}

pub(crate) struct ScannerKey(StaticSecret);

impl ScannerKey {
    /// Reads the key of a file, or makes one if there is no such file.
    pub(crate) fn load_or_create(file: &Path, world: &World) -> io::Result<Self> {
        let bytes = match std::fs::read_to_string(file) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => create(file, world)?,
            Err(error) => return Err(error),
        };
        let secret = fixed(&BASE64, bytes.trim());
        Ok(Self(StaticSecret::from(secret.ok_or_else(|| io::Error::other("this is no key"))?)))
    }

    /// The public half, in unpadded Base64.
    pub(crate) fn public(&self) -> String {
        BASE64.encode(PublicKey::from(&self.0))
    }

    pub(crate) fn open(&self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.try_open(sealed).ok_or(Error::BadDecryption)
    }

    fn try_open(&self, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let (ciphertext, mac) = (BASE64.decode(&sealed.ciphertext).ok()?, BASE64.decode(&sealed.mac).ok()?);
        let shared = self.0.diffie_hellman(&PublicKey::from(fixed(&BASE64, &sealed.ephemeral)?));
        if !shared.was_contributory() {
            return None;
        }
        let keys = expand(shared.as_bytes())?;
        let (aes, rest) = keys.split_at(32);
        let (authentication, iv) = rest.split_at(32);
        let authentication = hmac::Key::new(hmac::HMAC_SHA256, authentication);
        // As the specification has it, or as libolm does it, over nothing. Neither says who has encrypted this.
        let fits = |data: &[u8]| hmac::sign(&authentication, data).as_ref()[..MAC].ct_eq(&mac);
        if !bool::from(fits(&ciphertext) | fits(b"")) {
            return None;
        }
        let cipher = cbc::Decryptor::<Aes256>::new_from_slices(aes, iv).ok()?;
        cipher.decrypt_padded_vec::<Pkcs7>(&ciphertext).ok().map(Zeroizing::new)
    }
}

/// A key for encrypting, one for authenticating, a beginning.
fn expand(shared: &[u8]) -> Option<Zeroizing<[u8; 80]>> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            80
        }
    }
    let mut keys = Zeroizing::new([0; 80]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(shared);
    extracted.expand(&[], Length).and_then(|material| material.fill(&mut *keys)).ok()?;
    Some(keys)
}

fn create(file: &Path, world: &World) -> io::Result<Zeroizing<String>> {
    let text = Zeroizing::new(BASE64.encode(Zeroizing::new(world.bytes::<32>())));
    // Whole or not at all: half a key would keep the server from starting.
    let new = file.with_extension("new");
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(opened, "{}", *text)?;
    opened.sync_all()?;
    std::fs::rename(&new, file)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chappe_world::{Fake, FakeNet, World};

    use super::{ScannerKey, Sealed};
    use crate::Error;

    /// Encrypted by libolm for the key below.
    const CIPHERTEXT: &str = "H1CGem3UL4Y3YBdCIB3jug";
    const MAC: &str = "oNLFMrzfdWs";
    const EPHEMERAL: &str = "kopWuOqPSLyi0SH8+T5r47eFAAXTE9ZcAx+N0qfdZgs";

    fn sealed(ciphertext: &str, mac: &str, ephemeral: &str) -> Sealed {
        let [ciphertext, mac, ephemeral] = [ciphertext, mac, ephemeral].map(str::to_owned);
        Sealed { ciphertext, mac, ephemeral }
    }

    #[test]
    fn what_libolm_has_encrypted_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scanner.key");
        std::fs::write(&file, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        let world = World::fake(Fake::new("a.test", 1, &FakeNet::new()));
        let key = ScannerKey::load_or_create(&file, &world).unwrap();
        assert_eq!(key.public(), "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8");
        let opened = key.open(&sealed(CIPHERTEXT, MAC, EPHEMERAL)).unwrap();
        assert_eq!(&**opened, br#"{"file":1}"#);
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for wrong in [
            sealed(CIPHERTEXT, "oNLFMrzfdWt", EPHEMERAL),
            sealed(CIPHERTEXT, "", EPHEMERAL),
            sealed(CIPHERTEXT, MAC, zero),
            sealed(CIPHERTEXT, MAC, "AAAA"),
            sealed("AAAA", MAC, EPHEMERAL),
            sealed("", MAC, EPHEMERAL),
            sealed("%", MAC, EPHEMERAL),
        ] {
            assert!(matches!(key.open(&wrong), Err(Error::BadDecryption)));
        }
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scanner.key");
        let world = World::fake(Fake::new("a.test", 1, &FakeNet::new()));
        let first = ScannerKey::load_or_create(&file, &world).unwrap();
        let again = ScannerKey::load_or_create(&file, &world).unwrap();
        assert_eq!(first.public(), again.public());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // Encrypted for another key.
        assert!(first.open(&sealed(CIPHERTEXT, MAC, EPHEMERAL)).is_err());
        std::fs::write(&file, "nonsense").unwrap();
        assert!(ScannerKey::load_or_create(&file, &world).is_err());
    }
}
