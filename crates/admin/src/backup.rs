//! Backups: a folder with everything a server needs to live on elsewhere, its configuration aside.
//!
//! The database is copied first: what it names of media was on disk before, so it is in the copy of the media as well,
//! unless somebody deletes it meanwhile. The note that makes the folder a backup is written last.

mod place;

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use self::place::{belongs, clear, is_mounted, remove, replace, young};
use crate::Error;

const DATABASE: &str = "database";
const MEDIA: &str = "media";
const SIGNING_KEY: &str = "signing.key";
/// What says that a backup is whole.
const NOTE: &str = "backup.json";

/// Where a server keeps what is not in its store.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of the database.
    pub database: PathBuf,
    /// The folder of the media.
    pub media: PathBuf,
    /// The file of the key that signs.
    pub signing_key: PathBuf,
    /// The folder of the search index, which no backup holds.
    pub search: PathBuf,
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Whose it is.
    pub server_name: OwnedServerName,
    /// The format of the database.
    pub format: u32,
    /// When it was made, in milliseconds since 1970.
    pub made: u64,
    /// Media files and thumbnails.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// How files get to another folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Sharing what is on disk where the file system can: for files that nobody changes.
    Linked,
    /// As files of their own.
    Copied,
}

/// Makes the folder of a new backup, for its owner alone, and says where the database goes. Folders above are made too.
pub(crate) fn begin(folder: &Path) -> Result<PathBuf, Error> {
    let above = folder.parent().unwrap_or(folder);
    DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(at(above))?;
    DirBuilder::new().mode(0o700).create(folder).map_err(at(folder))?;
    Ok(folder.join(DATABASE))
}

/// Adds media and key to the database in a new backup, then the note.
pub(crate) fn complete(folder: &Path, places: &Places, mut note: Note) -> Result<Note, Error> {
    if places.media.exists() {
        let to = folder.join(MEDIA);
        (note.files, note.bytes) = tree(&places.media, &to, How::Linked).map_err(at(&places.media))?;
    }
    file(&places.signing_key, &folder.join(SIGNING_KEY), How::Copied).map_err(at(&places.signing_key))?;
    let path = folder.join(NOTE);
    let text = serde_json::to_string_pretty(&note).map_err(|error| Error::Invalid(error.to_string()))?;
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        sync(folder)
    };
    write().map_err(at(&path))?;
    Ok(note)
}

/// What came of putting a backup back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup says of itself.
    pub note: Note,
    /// Media files and thumbnails that were put back.
    pub files: u64,
    /// Whether the signing key that was there stays: it came after that of the backup.
    pub kept_key: bool,
    /// Where that is now which was there and is not the backup's.
    pub aside: Vec<PathBuf>,
}

impl Restored {
    /// What the operator should know, beside that it is done.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        if self.files < self.note.files {
            let (files, all) = (self.files, self.note.files);
            sentences.push(format!("only {files} of {all} media files are in the backup"));
        }
        if self.kept_key {
            sentences.push("the signing key that is there came after the backup: it stays".to_owned());
        }
        let moved = |aside: &PathBuf| format!("what was there before is {} now", aside.display());
        sentences.extend(self.aside.iter().map(moved));
        sentences
    }
}

/// Puts a backup where a server of that name will find it; `prepare` makes the database ready in the folder that it is
/// given. There must be no database yet, and until all is there there is none: what breaks off can be done again. Media and a
/// key that are there are put aside, but for a key that came after that of the backup, which stays.
pub async fn restore<Ready: Future<Output = Result<(), Error>>>(
    folder: &Path,
    places: &Places,
    server_name: &ServerName,
    prepare: impl FnOnce(PathBuf) -> Ready,
) -> Result<Restored, Error> {
    let note = read_note(folder)?;
    check(folder, &note, places, server_name)?;
    let key = folder.join(SIGNING_KEY);
    let present = present_key(&places.signing_key, &key)?;
    if present == PresentKey::Other && is_mounted(&places.signing_key) {
        let sentence =
            format!("{} is mounted and not the backup's: mount that", places.signing_key.display());
        return Err(Error::Invalid(sentence));
    }
    let [media, database] = [&places.media, &places.database].map(|place| young(place));
    let from = folder.join(MEDIA);
    let files = if from.exists() { copy(&from, &media)? } else { 0 };
    copy(&folder.join(DATABASE), &database)?;
    prepare(database.clone()).await?;
    let mut aside = Vec::new();
    if present == PresentKey::Other {
        let fresh = young(&places.signing_key);
        file(&key, &fresh, How::Copied).map_err(at(&key))?;
        aside.extend(replace(&fresh, &places.signing_key)?);
    }
    if from.exists() {
        aside.extend(replace(&media, &places.media)?);
    }
    // An index of what is lost now would name other things than it did.
    clear(&places.search)?;
    replace(&database, &places.database)?;
    Ok(Restored { note, files, kept_key: present == PresentKey::Later, aside })
}

/// Whether it can be done, before anything is changed.
fn check(folder: &Path, note: &Note, places: &Places, server_name: &ServerName) -> Result<(), Error> {
    if note.server_name != server_name {
        let sentence = format!("this is a backup of {}, not of {server_name}", note.server_name);
        return Err(Error::Invalid(sentence));
    }
    if places.database.exists() {
        let sentence = format!("{} is there already: nothing is overwritten", places.database.display());
        return Err(Error::Invalid(sentence));
    }
    let media = folder.join(MEDIA);
    if note.files > 0 && !media.exists() {
        let sentence = format!("{} of {} media files is missing", media.display(), note.files);
        return Err(Error::Invalid(sentence));
    }
    Ok(())
}

/// What is where the signing key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PresentKey {
    /// What the backup has.
    Same,
    /// A key that came after it, or is to.
    Later,
    /// Another one, or none.
    Other,
}

fn present_key(there: &Path, backup: &Path) -> Result<PresentKey, Error> {
    let kept = fs::read_to_string(backup).map_err(at(backup))?;
    let present = match fs::read_to_string(there) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(PresentKey::Other),
        read => read.map_err(at(there))?,
    };
    if present == kept {
        return Ok(PresentKey::Same);
    }
    // The first line is `ed25519 <version> <seed>`, those before it are `old ed25519:<version> <key> <until>`.
    let first = kept.lines().next().unwrap_or_default();
    let id = first.split_whitespace().take(2).collect::<Vec<_>>().join(":");
    let is_old = |line: &str| line.split_whitespace().take(2).eq(["old", &*id]);
    let is_known = present.lines().any(|line| line == first || is_old(line));
    Ok(if is_known { PresentKey::Later } else { PresentKey::Other })
}

/// A folder of a backup, instead of what an attempt before has left; gives the number of files.
fn copy(from: &Path, to: &Path) -> Result<u64, Error> {
    remove(to)?;
    tree(from, to, How::Copied).map(|(files, _)| files).map_err(at(from))
}

fn read_note(folder: &Path) -> Result<Note, Error> {
    let note = folder.join(NOTE);
    match fs::read(&note) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::Invalid(format!("{}: {error}", note.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::Invalid(format!("{} holds no whole backup", folder.display())))
        }
        Err(error) => Err(at(&note)(error)),
    }
}

fn at(place: &Path) -> impl Fn(io::Error) -> Error {
    let place = place.display().to_string();
    move |error| Error::File { place: place.clone(), error }
}

/// A folder with what is in it, for its owner alone; gives the number of files and their bytes.
fn tree(from: &Path, to: &Path, how: How) -> io::Result<(u64, u64)> {
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let mut sum = (0, 0);
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if belongs(&entry.file_name()) {
                let (files, bytes) = tree(&entry.path(), &target, how)?;
                sum = (sum.0 + files, sum.1 + bytes);
            }
            continue;
        }
        match file(&entry.path(), &target, how) {
            Ok(bytes) => sum = (sum.0 + 1, sum.1 + bytes),
            // Deleted since the folder was read.
            Err(error) if error.kind() == ErrorKind::NotFound && how == How::Linked => {}
            Err(error) => return Err(error),
        }
    }
    sync(to)?;
    Ok(sum)
}

/// One file, on disk when this returns; gives its bytes. What is at `to` is replaced.
fn file(from: &Path, to: &Path, how: How) -> io::Result<u64> {
    let linked = how == How::Linked && fs::hard_link(from, to).is_ok();
    if !linked {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(fs::metadata(to)?.len())
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{future::ready, os::unix::fs::PermissionsExt};

    use ruma::{owned_server_name, server_name};

    use super::{Error, Note, Path, PathBuf, Places, Restored, ServerName, begin, complete, fs, restore};

    fn note() -> Note {
        Note { server_name: owned_server_name!("hs1"), format: 1, made: 5, files: 0, bytes: 0 }
    }

    fn places(data: &Path) -> Places {
        Places {
            database: data.join("database"),
            media: data.join("media"),
            signing_key: data.join("signing.key"),
            search: data.join("search"),
        }
    }

    #[tokio::test]
    async fn what_was_put_aside_comes_back_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (places(&dir.path().join("old")), places(&dir.path().join("new")));
        for folder in ["media/ab/cd", "media/unfinished"] {
            fs::create_dir_all(dir.path().join("old").join(folder)).unwrap();
        }
        fs::create_dir_all(dir.path().join("new")).unwrap();
        fs::write(old.media.join("ab/cd/x"), "picture").unwrap();
        fs::write(old.media.join("unfinished/y"), "half a pict").unwrap();
        fs::write(&old.signing_key, "key").unwrap();
        fs::create_dir_all(new.search.join("stale")).unwrap();

        let backup = dir.path().join("backups/today");
        let database = begin(&backup).unwrap();
        assert!(begin(&backup).is_err(), "a backup is not written over another");
        fs::create_dir(&database).unwrap();
        fs::write(database.join("CURRENT"), "rows").unwrap();
        let put_back = async |server: &ServerName| restore(&backup, &new, server, |_| ready(Ok(()))).await;
        let early = put_back(server_name!("hs1")).await.unwrap_err();
        assert!(early.to_string().contains("no whole backup"), "{early}");
        let made = complete(&backup, &old, note()).unwrap();
        assert_eq!((made.files, made.bytes), (1, 7));
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o700);

        let stranger = put_back(server_name!("hs2")).await.unwrap_err();
        assert!(stranger.to_string().contains("backup of hs1"), "{stranger}");
        let breaks = |_| ready(Err(Error::Invalid("broken".to_owned())));
        let broken = restore(&backup, &new, server_name!("hs1"), breaks).await;
        assert!(broken.is_err() && !new.database.exists(), "what breaks off can be done again");
        let all = Restored { note: made, files: 1, kept_key: false, aside: Vec::new() };
        assert_eq!(put_back(server_name!("hs1")).await.unwrap(), all);
        assert!(all.sentences().is_empty());
        assert_eq!(fs::read(new.media.join("ab/cd/x")).unwrap(), b"picture");
        assert_eq!(fs::read(new.database.join("CURRENT")).unwrap(), b"rows");
        assert_eq!(fs::read(&new.signing_key).unwrap(), b"key");
        assert!(!new.media.join("unfinished").exists());
        assert!(!new.search.exists(), "an index of lost days is not kept");
        let again = put_back(server_name!("hs1")).await.unwrap_err();
        assert!(again.to_string().contains("there already"), "{again}");
    }

    /// A backup with a key and one medium, and a server of that name that has lost its database.
    fn lost(dir: &Path) -> (PathBuf, Places) {
        let (old, new, backup) = (places(&dir.join("old")), places(&dir.join("new")), dir.join("backup"));
        for place in [&old, &new] {
            fs::create_dir_all(&place.media).unwrap();
        }
        fs::write(old.media.join("x"), "picture").unwrap();
        fs::write(&old.signing_key, "ed25519 a_1 one\n").unwrap();
        fs::write(new.media.join("y"), "later").unwrap();
        fs::create_dir(begin(&backup).unwrap()).unwrap();
        complete(&backup, &old, note()).unwrap();
        (backup, new)
    }

    #[tokio::test]
    async fn a_key_that_came_after_the_backup_stays() {
        let rotated = "ed25519 a_2 two\nold ed25519:a_1 public 5\n";
        for (there, kept_key, before) in [
            ("ed25519 a_1 one\n", false, None),
            (rotated, true, None),
            ("ed25519 a_1 one\nnext ed25519 a_2 two\n", true, None),
            ("ed25519 a_3 three\n", false, Some("ed25519 a_3 three\n")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (backup, new) = lost(dir.path());
            fs::write(&new.signing_key, there).unwrap();
            let breaks = |_| ready(Err(Error::Invalid("broken".to_owned())));
            restore(&backup, &new, server_name!("hs1"), breaks).await.unwrap_err();
            assert_eq!(fs::read_to_string(&new.signing_key).unwrap(), there);
            assert_eq!(fs::read(new.media.join("y")).unwrap(), b"later", "nothing is changed yet");

            let restored = restore(&backup, &new, server_name!("hs1"), |_| ready(Ok(()))).await.unwrap();
            assert_eq!(restored.kept_key, kept_key, "{there}");
            let now = fs::read_to_string(&new.signing_key).unwrap();
            assert_eq!(now, if kept_key { there } else { "ed25519 a_1 one\n" });
            let aside = fs::read_to_string(dir.path().join("new/signing.key.before")).ok();
            assert_eq!(aside.as_deref(), before);
            assert_eq!(fs::read(new.media.join("x")).unwrap(), b"picture");
            assert_eq!(fs::read(dir.path().join("new/media.before/y")).unwrap(), b"later");
            let sentences = restored.sentences().join("\n");
            assert!(sentences.contains("media.before"), "{sentences}");
            assert_eq!(sentences.contains("it stays"), kept_key, "{sentences}");
        }
    }

    #[tokio::test]
    async fn a_backup_without_its_media_takes_none_away() {
        let dir = tempfile::tempdir().unwrap();
        let (backup, new) = lost(dir.path());
        fs::remove_dir_all(backup.join("media")).unwrap();
        let put_back = async || restore(&backup, &new, server_name!("hs1"), |_| ready(Ok(()))).await;
        let refused = put_back().await.unwrap_err();
        assert!(refused.to_string().contains("of 1 media files is missing"), "{refused}");
        assert_eq!(fs::read(new.media.join("y")).unwrap(), b"later");
        assert!(!new.database.exists());
        fs::create_dir(backup.join("media")).unwrap();
        let sentences = put_back().await.unwrap().sentences().join("\n");
        assert!(sentences.contains("only 0 of 1"), "{sentences}");
        assert_eq!(fs::read(dir.path().join("new/media.before/y")).unwrap(), b"later");
    }
}
