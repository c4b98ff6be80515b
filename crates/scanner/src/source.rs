//! The bytes that are scanned: those of a file on disk, decrypted on the way where they are encrypted.

use std::io;

use aes::{
    Aes256,
    cipher::{StreamCipher, StreamCipherSeek},
};
use ctr::Ctr128BE;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// What attachments are encrypted with (client-server API, "Extensions to `m.room.message` msgtypes").
pub(crate) type Cipher = Ctr128BE<Aes256>;

/// A file to be read, from the beginning to the end, as often as wanted.
pub(crate) struct Source<'a> {
    file: &'a mut File,
    cipher: Option<Cipher>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a mut File, cipher: Option<Cipher>) -> Self {
        Self { file, cipher }
    }

    /// Goes back to the beginning.
    pub(crate) async fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind().await?;
        if let Some(cipher) = &mut self.cipher {
            cipher.seek(0_u64);
        }
        Ok(())
    }

    /// The next bytes in clear; none at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = Vec::with_capacity(PIECE);
        if self.file.take(PIECE as u64).read_to_end(&mut piece).await? == 0 {
            return Ok(None);
        }
        if let Some(cipher) = &mut self.cipher {
            cipher.apply_keystream(&mut piece);
        }
        Ok(Some(piece))
    }
}
