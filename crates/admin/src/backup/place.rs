//! Putting something where something else may be. A folder that is a mount, or a link to another disk, stays where it is: what
//! is in it makes room.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{at, sync};
use crate::Error;

/// Whether a folder in the folder of media is of the media: uploads under way are not, nor what file systems and earlier backups
/// have put aside there.
pub(super) fn belongs(folder: &OsStr) -> bool {
    let name = folder.to_string_lossy();
    name != "unfinished" && name != "lost+found" && !name.starts_with("media.")
}

/// Where that which is to be at `place` is made ready, on the same disk.
pub(super) fn young(place: &Path) -> PathBuf {
    beside(place).with_extension("restored")
}

/// Puts something that was made ready where something else may be; gives where that is then.
pub(super) fn replace(young: &Path, place: &Path) -> Result<Option<PathBuf>, Error> {
    let aside = free_place(&beside(place));
    let replaced = if stays(place) { exchange(young, place, &aside) } else { rename(young, place, &aside) };
    replaced.map(|moved| moved.then_some(aside)).map_err(at(place))
}

fn rename(young: &Path, place: &Path, aside: &Path) -> io::Result<bool> {
    let moved = place.exists();
    if moved {
        fs::rename(place, aside)?;
    }
    fs::rename(young, place)?;
    place.parent().map_or(Ok(()), sync)?;
    Ok(moved)
}

/// The same for a folder that stays.
fn exchange(young: &Path, place: &Path, aside: &Path) -> io::Result<bool> {
    let old = entries(place)?;
    let moved = !old.is_empty();
    if moved {
        DirBuilder::new().mode(0o700).create(aside)?;
        move_all(old, aside)?;
    }
    move_all(entries(young)?, place)?;
    fs::remove_dir_all(young)?;
    Ok(moved)
}

fn move_all(entries: Vec<PathBuf>, to: &Path) -> io::Result<()> {
    for entry in entries {
        fs::rename(&entry, to.join(entry.file_name().unwrap_or_default()))?;
    }
    sync(to)
}

/// What belongs to a folder.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if belongs(&entry.file_name()) {
            kept.push(entry.path());
        }
    }
    Ok(kept)
}

/// Removes a folder, or what is in one that stays.
pub(super) fn clear(folder: &Path) -> Result<(), Error> {
    if !stays(folder) {
        return remove(folder);
    }
    let each =
        |entry: &PathBuf| if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) };
    entries(folder).and_then(|all| all.iter().try_for_each(each)).map_err(at(folder))
}

/// Removes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

/// A name beside a place, or within it where nothing beside it is on its disk.
fn beside(place: &Path) -> PathBuf {
    if stays(place) { place.join(place.file_name().unwrap_or_default()) } else { place.to_owned() }
}

/// Where nothing is yet.
fn free_place(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".before");
    while Path::new(&name).exists() {
        name.push("+");
    }
    name.into()
}

/// Whether a folder cannot be moved, or leads to another disk.
fn stays(place: &Path) -> bool {
    place.is_dir() && (place.is_symlink() || is_mounted(place))
}

/// Whether a file or folder is a mount by itself.
pub(super) fn is_mounted(place: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    fs::canonicalize(place).is_ok_and(|place| is_among(&mounts, &place))
}

fn is_among(mounts: &str, place: &Path) -> bool {
    let written = place.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|mounted| mounted == written)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::{clear, is_among, is_mounted, replace, young};

    #[test]
    fn mounts_are_known() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 21 8:17 / /srv/all\\040media rw,noatime - ext4 /dev/sdb1 rw\n";
        for (place, is_there) in [("/", true), ("/srv/all media", true), ("/srv", false), ("/srv/all", false)]
        {
            assert_eq!(is_among(mounts, Path::new(place)), is_there, "{place}");
        }
        assert!(is_mounted(Path::new("/proc")));
    }

    #[test]
    fn a_folder_on_another_disk_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, place) = (dir.path().join("disk"), dir.path().join("media"));
        for folder in ["ab", "lost+found", "media.before"] {
            fs::create_dir_all(disk.join(folder)).unwrap();
        }
        fs::write(disk.join("ab/x"), "old").unwrap();
        symlink(&disk, &place).unwrap();
        let fresh = young(&place);
        fs::create_dir_all(fresh.join("ab")).unwrap();
        fs::write(fresh.join("ab/x"), "new").unwrap();

        let aside = replace(&fresh, &place).unwrap().unwrap();
        assert!(place.is_symlink() && !fresh.exists());
        assert_eq!(fs::read(disk.join("ab/x")).unwrap(), b"new");
        assert_eq!(aside, place.join("media.before+"), "what was put aside earlier stays");
        assert_eq!(fs::read(aside.join("ab/x")).unwrap(), b"old");
        assert!(disk.join("lost+found").exists());

        clear(&place).unwrap();
        assert!(place.is_symlink() && !disk.join("ab").exists() && disk.join("lost+found").exists());
    }
}
