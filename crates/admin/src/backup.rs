//! Backups: a folder with everything a server needs to live on elsewhere, its configuration aside.
//!
//! The database is copied first: what it names of media was on disk before, so it is in the copy of the media as well,
//! unless somebody deletes it meanwhile. The note that makes the folder a backup is written last.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::Error;

const DATABASE: &str = "database";
const MEDIA: &str = "media";
const SIGNING_KEY: &str = "signing.key";
/// What says that a backup is whole.
const NOTE: &str = "backup.json";
/// What the media folder holds of uploads under way.
const UNFINISHED: &str = "unfinished";

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

/// Puts a backup where a server of that name will find it; `prepare` makes the database ready in the folder that it is
/// given. There must be no database yet, and until all is there there is none: what breaks off can be done again.
pub fn restore(
    folder: &Path,
    places: &Places,
    server_name: &ServerName,
    prepare: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<Note, Error> {
    let note = read_note(folder)?;
    if note.server_name != server_name {
        let sentence = format!("this is a backup of {}, not of {server_name}", note.server_name);
        return Err(Error::Invalid(sentence));
    }
    if places.database.exists() {
        let sentence = format!("{} is there already: nothing is overwritten", places.database.display());
        return Err(Error::Invalid(sentence));
    }
    // An index of what is lost now would name other things than it did.
    match fs::remove_dir_all(&places.search) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&places.search)(error)),
        _ => {}
    }
    let young = places.database.with_extension("restored");
    for (name, to) in [(MEDIA, &places.media), (DATABASE, &young)] {
        match fs::remove_dir_all(to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(to)(error)),
            _ => {}
        }
        let from = folder.join(name);
        if from.exists() {
            tree(&from, to, How::Copied).map_err(at(&from))?;
        }
    }
    let key = folder.join(SIGNING_KEY);
    file(&key, &places.signing_key, How::Copied).map_err(at(&key))?;
    prepare(&young)?;
    let rename = || -> io::Result<()> {
        fs::rename(&young, &places.database)?;
        places.database.parent().map_or(Ok(()), sync)
    };
    rename().map_err(at(&places.database))?;
    Ok(note)
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
            if entry.file_name() != UNFINISHED {
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
    use std::os::unix::fs::PermissionsExt;

    use ruma::{owned_server_name, server_name};

    use super::{Error, Note, Places, ServerName, begin, complete, fs, restore};

    fn note() -> Note {
        Note { server_name: owned_server_name!("hs1"), format: 1, made: 5, files: 0, bytes: 0 }
    }

    #[test]
    fn what_was_put_aside_comes_back_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let places = |name: &str| {
            let data = dir.path().join(name);
            Places {
                database: data.join("database"),
                media: data.join("media"),
                signing_key: data.join("signing.key"),
                search: data.join("search"),
            }
        };
        let (old, new) = (places("old"), places("new"));
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
        let put_back = |server: &ServerName| restore(&backup, &new, server, |_| Ok(()));
        let early = put_back(server_name!("hs1")).unwrap_err();
        assert!(early.to_string().contains("no whole backup"), "{early}");
        let made = complete(&backup, &old, note()).unwrap();
        assert_eq!((made.files, made.bytes), (1, 7));
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o700);

        let stranger = put_back(server_name!("hs2")).unwrap_err();
        assert!(stranger.to_string().contains("backup of hs1"), "{stranger}");
        let broken =
            restore(&backup, &new, server_name!("hs1"), |_| Err(Error::Invalid("broken".to_owned())));
        assert!(broken.is_err() && !new.database.exists(), "what breaks off can be done again");
        assert_eq!(put_back(server_name!("hs1")).unwrap(), made);
        assert_eq!(fs::read(new.media.join("ab/cd/x")).unwrap(), b"picture");
        assert_eq!(fs::read(new.database.join("CURRENT")).unwrap(), b"rows");
        assert_eq!(fs::read(&new.signing_key).unwrap(), b"key");
        assert!(!new.media.join("unfinished").exists());
        assert!(!new.search.exists(), "an index of lost days is not kept");
        let again = put_back(server_name!("hs1")).unwrap_err();
        assert!(again.to_string().contains("there already"), "{again}");
    }
}
