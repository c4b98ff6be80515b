//! The file of the keys that sign events and requests, one a line: the present one, made at the first start; those that follow
//! from one before it and stay; those before it; and the one that takes over at the next start.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use chappe_federation::OldKey;
use chappe_rules::{
    build::{Purpose, SigningKey},
    check::WeakKeys,
};
use chappe_world::World;
use ruma::OwnedServerSigningKeyId;

use crate::Error;

/// The keys of a server.
#[derive(Debug)]
pub struct Keys {
    /// Signs.
    pub current: SigningKey,
    /// Signed before.
    pub old: BTreeMap<OwnedServerSigningKeyId, OldKey>,
    /// Signs from the next start on.
    pub(crate) next: Option<SigningKey>,
}

/// Reads the keys of `file`; where there is none, makes one for a server that `is_new`. A key that was to follow takes over:
/// nothing is signed by the one before it from now on. A key that everybody knows is refused, and nothing that follows from it
/// stays.
pub fn load_or_create(file: &Path, world: &World, weak: &WeakKeys, is_new: bool) -> Result<Keys, Error> {
    let Some(mut keys) = load(file)? else {
        if !is_new {
            let sentence = "is missing, and this is no new server: put the file back from a backup; only if it is lost for \
                            good, make another key with `chappe admin signing-key rotate`";
            return Err(wrong(file, &sentence));
        }
        create(file, world)?;
        return load_or_create(file, world, weak, is_new);
    };
    if let Some(next) = keys.next.take() {
        let is_known = weak.contains(&keys.current.public_key());
        let next = if is_known { next } else { next.taking_over_from(&keys.current) };
        let before = std::mem::replace(&mut keys.current, next);
        let id = OwnedServerSigningKeyId::try_from(before.id()).map_err(|error| wrong(file, &error))?;
        keys.old.insert(id, OldKey { key: before.public_base64(), expired_ts: world.now() });
        replace(file, &keys)?;
        tracing::info!(before = before.id(), now = keys.current.id(), "another key signs from now on");
    }
    if weak.contains(&keys.current.public_key()) {
        return Err(wrong(file, &"this key is public knowledge"));
    }
    Ok(keys)
}

/// Makes the key that signs from the next start on. One that waits for that already is replaced. `None` where there is no file.
pub(crate) fn prepare_next(file: &Path, world: &World) -> Result<Option<SigningKey>, Error> {
    let Some(mut keys) = load(file)? else { return Ok(None) };
    keys.next = Some(fresh(file, world)?);
    replace(file, &keys)?;
    Ok(keys.next)
}

/// Makes a key and writes it to `file`, which must not exist: owner-only, on disk when this returns.
pub fn create(file: &Path, world: &World) -> Result<SigningKey, Error> {
    let keys = Keys { current: fresh(file, world)?, old: BTreeMap::new(), next: None };
    let opened = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let write = || -> io::Result<()> {
        write_to(opened()?, &keys)?;
        sync_folder(file)
    };
    write().map_err(at(file))?;
    Ok(keys.current)
}

fn fresh(file: &Path, world: &World) -> Result<SigningKey, Error> {
    let version = format!("a_{}", world.token(6));
    SigningKey::from_seed(world.bytes(), &version).map_err(|error| wrong(file, &error))
}

/// Reads the file; `None` where there is none.
pub(crate) fn load(file: &Path) -> Result<Option<Keys>, Error> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(file)(error)),
    };
    let key = |line: &str| SigningKey::from_line(line).map_err(|error| wrong(file, &error));
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let current = key(lines.next().unwrap_or_default())?;
    let mut keys = Keys { current, old: BTreeMap::new(), next: None };
    for line in lines {
        match line.split_once(' ') {
            Some(("next", line)) => keys.next = Some(key(line)?),
            Some(("for", line)) => {
                let named = line.split_once(' ').and_then(|(name, line)| Some((purpose(name)?, line)));
                let (purpose, line) = named.ok_or_else(|| wrong(file, &"a line says for nothing known"))?;
                keys.current.keep(purpose, key(line)?);
            }
            Some(("old", line)) => {
                let read = old_key(line);
                let (id, old) = read.ok_or_else(|| wrong(file, &format!("{line:?} is no old key")))?;
                keys.old.insert(id, old);
            }
            // Not shown: it may be a secret that is not at its place.
            _ => return Err(wrong(file, &"lines after the first begin with for, old or next")),
        }
    }
    Ok(Some(keys))
}

fn purpose(name: &str) -> Option<Purpose> {
    Purpose::ALL.into_iter().find(|purpose| purpose.name() == name)
}

fn old_key(line: &str) -> Option<(OwnedServerSigningKeyId, OldKey)> {
    let mut parts = line.split_whitespace();
    let (id, key, expired_ts) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    Some((id.try_into().ok()?, OldKey { key: key.to_owned(), expired_ts }))
}

fn replace(file: &Path, keys: &Keys) -> Result<(), Error> {
    let new = file.with_extension("new");
    let opened = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let write = || -> io::Result<()> {
        write_to(opened()?, keys)?;
        std::fs::rename(&new, file)?;
        sync_folder(file)
    };
    write().map_err(at(file))
}

fn write_to(mut opened: File, keys: &Keys) -> io::Result<()> {
    writeln!(opened, "{}", keys.current.to_line().trim_end())?;
    for (purpose, kept) in keys.current.kept() {
        writeln!(opened, "for {} {}", purpose.name(), kept.to_line().trim_end())?;
    }
    for (id, old) in &keys.old {
        writeln!(opened, "old {id} {} {}", old.key, old.expired_ts)?;
    }
    if let Some(next) = &keys.next {
        writeln!(opened, "next {}", next.to_line().trim_end())?;
    }
    opened.sync_all()
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> Error {
    let place = format!("signing key {}", file.display());
    |error| Error::File { place, error }
}

fn wrong(file: &Path, sentence: &dyn Display) -> Error {
    Error::Invalid(format!("signing key {}: {sentence}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chappe_rules::{
        build::{Purpose, SigningKey},
        check::WeakKeys,
    };
    use chappe_world::{Fake, FakeNet, World};

    use super::{create, load_or_create, prepare_next};

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let load = |is_new| load_or_create(&file, &world, &WeakKeys::default(), is_new);
        let missing = load(false).unwrap_err().to_string();
        assert!(missing.contains("from a backup") && !file.exists(), "{missing}");
        let first = load(true).unwrap().current;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for is_new in [true, false] {
            let again = load(is_new).unwrap().current;
            assert_eq!((first.public_key(), first.id()), (again.public_key(), again.id()));
        }
        assert!(create(&file, &world).is_err(), "never overwritten");
    }

    #[test]
    fn another_key_takes_over_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        let load = || load_or_create(&file, &world, &WeakKeys::default(), true).unwrap();
        assert!(prepare_next(&file, &world).unwrap().is_none(), "there is none yet");
        let first = load();
        assert!(first.old.is_empty());
        prepare_next(&file, &world).unwrap();
        let next = prepare_next(&file, &world).unwrap().unwrap();
        let before = world.now();
        let second = load();
        assert_eq!((second.current.public_key(), second.old.len()), (next.public_key(), 1));
        let (old, key) = second.old.first_key_value().unwrap();
        assert_eq!((old.as_str(), &key.key), (first.current.id(), &first.current.public_base64()));
        assert!((before..=world.now()).contains(&key.expired_ts));
        let again = load();
        assert_eq!((again.current.id(), &again.old), (next.id(), &second.old), "once");
        for purpose in Purpose::ALL {
            let followers = [&first, &second, &again].map(|keys| keys.current.derived(purpose).public_key());
            assert_eq!(followers, [followers[0]; 3], "rooms name what follows from the first one");
        }
        std::fs::write(&file, format!("{}\nfor nothing {}\n", *next.to_line(), *next.to_line())).unwrap();
        assert!(load_or_create(&file, &world, &WeakKeys::default(), true).is_err());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, "ed25519 a AAAA").unwrap();
        assert!(load_or_create(&file, &world, &WeakKeys::default(), true).is_err());
    }

    #[test]
    fn what_everybody_knows_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signing.key");
        let key = SigningKey::from_seed([7; 32], "1").unwrap();
        std::fs::write(&file, &*key.to_line()).unwrap();
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        assert!(load_or_create(&file, &world, &WeakKeys::default(), false).is_ok());
        let weak: WeakKeys = [key.public_key()].into_iter().collect();
        let refused = load_or_create(&file, &world, &weak, false).unwrap_err();
        assert!(refused.to_string().contains("public knowledge"));
        let next = prepare_next(&file, &world).unwrap().unwrap();
        for _ in 0..2 {
            let keys = load_or_create(&file, &world, &weak, false).unwrap();
            assert_eq!((keys.current.public_key(), keys.current.kept().count()), (next.public_key(), 0));
        }
    }
}
