//! The file of the keys that sign events and requests: the present one, made at the first start, those before it, and the
//! one that follows at the next start, one a line.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use chappe_federation::OldKey;
use chappe_rules::{build::SigningKey, check::WeakKeys};
use chappe_world::World;
use ruma::{
    OwnedServerSigningKeyId,
    serde::{Base64, base64::Standard},
};

/// The keys of a server.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Signs.
    pub(crate) current: SigningKey,
    /// Signed before.
    pub(crate) old: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    /// Signs from the next start on.
    next: Option<SigningKey>,
}

/// Reads the keys of `file`, or makes one if there is no such file. A key that was to follow takes over: nothing is signed
/// by the one before it from now on. A key that everybody knows is refused.
pub(crate) fn load_or_create(file: &Path, world: &World, weak: &WeakKeys) -> Result<Keys> {
    let Some(mut keys) = load(file)? else {
        create(file, world)?;
        return load_or_create(file, world, weak);
    };
    if let Some(next) = keys.next.take() {
        let before = std::mem::replace(&mut keys.current, next);
        let id = OwnedServerSigningKeyId::try_from(before.id()).context("id of the signing key")?;
        let key = Base64::<Standard, _>::new(before.public_key()).encode();
        keys.old.insert(id, OldKey { key, expired_ts: world.now() });
        replace(file, &keys)?;
        tracing::info!(before = before.id(), now = keys.current.id(), "another key signs from now on");
    }
    let known = weak.contains(&keys.current.public_key());
    ensure!(!known, "signing key {}: this key is public knowledge", file.display());
    Ok(keys)
}

/// Makes the key that signs from the next start on; gives its id. One that waits for that already is replaced.
pub(crate) fn prepare_next(file: &Path, world: &World) -> Result<String> {
    let Some(mut keys) = load(file)? else {
        bail!("no signing key {}: start the server once", file.display())
    };
    let next = fresh(world)?;
    let id = next.id().to_owned();
    keys.next = Some(next);
    replace(file, &keys)?;
    Ok(id)
}

/// Makes a key and writes it to `file`, which must not exist: owner-only, on disk when this returns.
pub(crate) fn create(file: &Path, world: &World) -> Result<()> {
    let keys = Keys { current: fresh(world)?, old: BTreeMap::new(), next: None };
    let opened = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let write = || -> std::io::Result<()> {
        write_to(opened()?, &keys)?;
        sync_folder(file)
    };
    write().with_context(|| format!("writing signing key {}", file.display()))
}

fn fresh(world: &World) -> Result<SigningKey> {
    SigningKey::from_seed(world.bytes(), &format!("a_{}", world.token(6))).context("signing key")
}

fn load(file: &Path) -> Result<Option<Keys>> {
    let place = || format!("signing key {}", file.display());
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(place),
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let current = SigningKey::from_line(lines.next().unwrap_or_default()).with_context(place)?;
    let mut keys = Keys { current, old: BTreeMap::new(), next: None };
    for line in lines {
        match line.split_once(' ') {
            Some(("next", key)) => keys.next = Some(SigningKey::from_line(key).with_context(place)?),
            Some(("old", key)) => {
                let (id, old) =
                    old_key(key).with_context(|| format!("{}: {line:?} is no old key", place()))?;
                keys.old.insert(id, old);
            }
            // Not shown: it may be a secret that is not at its place.
            _ => bail!("{}: lines after the first begin with old or next", place()),
        }
    }
    Ok(Some(keys))
}

fn old_key(line: &str) -> Option<(OwnedServerSigningKeyId, OldKey)> {
    let mut parts = line.split_whitespace();
    let (id, key, expired_ts) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    Some((id.try_into().ok()?, OldKey { key: key.to_owned(), expired_ts }))
}

fn replace(file: &Path, keys: &Keys) -> Result<()> {
    let new = file.with_extension("new");
    let opened = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let write = || -> std::io::Result<()> {
        write_to(opened()?, keys)?;
        std::fs::rename(&new, file)?;
        sync_folder(file)
    };
    write().with_context(|| format!("writing signing key {}", file.display()))
}

fn write_to(mut opened: File, keys: &Keys) -> std::io::Result<()> {
    writeln!(opened, "{}", keys.current.to_line().trim_end())?;
    for (id, old) in &keys.old {
        writeln!(opened, "old {id} {} {}", old.key, old.expired_ts)?;
    }
    if let Some(next) = &keys.next {
        writeln!(opened, "next {}", next.to_line().trim_end())?;
    }
    opened.sync_all()
}

fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chappe_rules::{build::SigningKey, check::WeakKeys};
    use chappe_world::{Fake, FakeNet, World};

    use super::{load_or_create, prepare_next};

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let load = || load_or_create(&file, &world, &WeakKeys::default()).unwrap();
        let first = load().current;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = load().current;
        assert_eq!((first.public_key(), first.id()), (second.public_key(), second.id()));
        assert!(super::create(&file, &world).is_err(), "never overwritten");
    }

    #[test]
    fn another_key_takes_over_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let load = || load_or_create(&file, &world, &WeakKeys::default()).unwrap();
        assert!(prepare_next(&file, &world).is_err(), "there is none yet");
        let first = load();
        assert!(first.old.is_empty());
        prepare_next(&file, &world).unwrap();
        let id = prepare_next(&file, &world).unwrap();
        let before = world.now();
        let second = load();
        assert_eq!((second.current.id(), second.old.len()), (&*id, 1));
        let (old, key) = second.old.first_key_value().unwrap();
        assert_eq!(old.as_str(), first.current.id());
        assert!((before..=world.now()).contains(&key.expired_ts));
        let again = load();
        assert_eq!((again.current.id(), &again.old), (&*id, &second.old), "once");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, "ed25519 a AAAA").unwrap();
        assert!(load_or_create(&file, &world, &WeakKeys::default()).is_err());
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
