//! A command that scans: it is given the path of a file in clear and says by its exit code what it thinks.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chappe_world::World;
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
};

use crate::{Error, engine::Outcome, source::Source};

/// The folder of files in clear. What a crash left there is removed when it is opened.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

/// A file in clear, removed when it is dropped.
struct InClear(PathBuf);

impl Drop for InClear {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "a file in clear could not be removed");
        }
    }
}

impl Folder {
    pub(crate) async fn open(path: PathBuf) -> std::io::Result<Self> {
        if fs::try_exists(&path).await? {
            fs::remove_dir_all(&path).await?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).await?;
        Ok(Self(path))
    }

    async fn in_clear(&self, world: &World, source: &mut Source<'_>) -> std::io::Result<InClear> {
        let path = self.0.join(world.token(24));
        // In one piece: who stops waiting for the disk leaves no file behind that nobody removes.
        let opened = world.spawn_blocking(move || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            Ok::<_, std::io::Error>((file, InClear(path)))
        });
        let (file, in_clear) = opened.await.map_err(std::io::Error::other)??;
        let mut file = File::from_std(file);
        source.rewind().await?;
        while let Some(piece) = source.next().await? {
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        Ok(in_clear)
    }
}

/// Runs the command on a file; its exit code.
pub(crate) async fn scan(
    (world, folder): (&World, &Folder),
    command: &[PathBuf],
    source: &mut Source<'_>,
) -> Result<Outcome, Error> {
    let file = folder.in_clear(world, source).await?;
    let (program, arguments) =
        command.split_first().ok_or_else(|| Error::Away("there is no command".to_owned()))?;
    let arguments: Vec<&OsStr> =
        arguments.iter().map(PathBuf::as_path).chain([&*file.0]).map(Path::as_os_str).collect();
    let ended = world.run(program, &arguments).await;
    match ended.map_err(|error| Error::Engine(format!("{}: {error}", program.display())))? {
        Some(0) => Ok(Outcome::Clean),
        Some(code) => Ok(Outcome::Exited(code)),
        None => Err(Error::Engine("the command was ended by a signal".to_owned())),
    }
}
