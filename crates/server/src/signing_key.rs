//! The key that signs events and requests: one line in a file of its own, made at the first start.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chappe_world::World;
use ruma::signatures::Ed25519KeyPair;

/// What stands before the 32 secret bytes in a PKCS#8 document of an Ed25519 key (RFC 8410 §7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the key of `file`, or makes one if there is no such file.
pub fn load_or_create(file: &Path, world: &World) -> Result<Ed25519KeyPair> {
    match std::fs::read_to_string(file) {
        Ok(line) => parse(&line).with_context(|| format!("signing key {}", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(file, world)?;
            load_or_create(file, world)
        }
        Err(error) => Err(error).with_context(|| format!("signing key {}", file.display())),
    }
}

/// Makes a key and writes it to `file`, which must not exist: owner-only, on disk when this returns.
pub fn create(file: &Path, world: &World) -> Result<()> {
    let line = format!("ed25519 a_{} {}\n", world.token(6), BASE64.encode(world.bytes::<32>()));
    let write = || -> std::io::Result<()> {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        opened.write_all(line.as_bytes())?;
        opened.sync_all()?;
        File::open(file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("writing signing key {}", file.display()))
}

/// `ed25519 <version> <secret in base64>`, the form that other homeservers use as well.
fn parse(line: &str) -> Result<Ed25519KeyPair> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let [algorithm, version, secret] = parts[..] else { bail!("one line `ed25519 <version> <base64>` is needed") };
    ensure!(algorithm == "ed25519", "the algorithm must be ed25519");
    let named = !version.is_empty() && version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ensure!(named, "the version may have letters, digits and _ only");
    let secret = BASE64.decode(secret).context("the secret is not base64")?;
    ensure!(secret.len() == 32, "the secret must have 32 bytes");
    ensure!(secret.iter().any(|byte| *byte != secret[0]), "the secret is not random");
    let document = [&PKCS8_HEAD[..], &secret].concat();
    Ed25519KeyPair::from_der(&document, version.to_owned()).context("not a key")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chappe_world::{Fake, FakeNet, World};

    use super::{load_or_create, parse};

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let first = load_or_create(&file, &world).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = load_or_create(&file, &world).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(first.version(), second.version());
        assert!(super::create(&file, &world).is_err(), "never overwritten");
    }

    #[test]
    fn keys_of_other_servers_are_read() {
        // The specification's own test key (appendices, "Signing JSON").
        let pair = parse("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n").unwrap();
        assert_eq!(pair.version(), "1");
    }

    #[test]
    fn what_is_no_key() {
        for line in ["", "ed25519 1", "rsa 1 AAAA", "ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "ed25519 1 YJDB", "ed25519 1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
