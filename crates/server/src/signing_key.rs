//! The file of the key that signs events and requests: one line, made at the first start.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use chappe_rules::{build::SigningKey, check::WeakKeys};
use chappe_world::World;

/// Reads the key of `file`, or makes one if there is no such file. A key that everybody knows is refused.
pub(crate) fn load_or_create(file: &Path, world: &World, weak: &WeakKeys) -> Result<SigningKey> {
    let place = || format!("signing key {}", file.display());
    match std::fs::read_to_string(file) {
        Ok(line) => {
            let key = SigningKey::from_line(&line).with_context(place)?;
            ensure!(!weak.contains(&key.public_key()), "{}: this key is public knowledge", place());
            Ok(key)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(file, world)?;
            load_or_create(file, world, weak)
        }
        Err(error) => Err(error).with_context(place),
    }
}

/// Makes a key and writes it to `file`, which must not exist: owner-only, on disk when this returns.
pub(crate) fn create(file: &Path, world: &World) -> Result<()> {
    let key =
        SigningKey::from_seed(world.bytes(), &format!("a_{}", world.token(6))).context("signing key")?;
    let write = || -> std::io::Result<()> {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        writeln!(opened, "{}", key.to_line().trim_end())?;
        opened.sync_all()?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("writing signing key {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chappe_rules::{build::SigningKey, check::WeakKeys};
    use chappe_world::{Fake, FakeNet, World};

    use super::load_or_create;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let load = || load_or_create(&file, &world, &WeakKeys::default()).unwrap();
        let first = load();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = load();
        assert_eq!((first.public_key(), first.id()), (second.public_key(), second.id()));
        assert!(super::create(&file, &world).is_err(), "never overwritten");
    }

    #[test]
    fn what_everybody_knows_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let key = SigningKey::from_seed([7; 32], "1").unwrap();
        std::fs::write(&file, &*key.to_line()).unwrap();
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        assert!(load_or_create(&file, &world, &WeakKeys::default()).is_ok());
        let weak: WeakKeys = [key.public_key()].into_iter().collect();
        assert!(load_or_create(&file, &world, &weak).unwrap_err().to_string().contains("public knowledge"));
    }
}
