//! Order-preserving key encoding: bytes compare as the typed keys do.

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};

use crate::tx::Error;

/// Appends the parts of a key.
#[derive(Debug, Default)]
pub struct KeyWriter(pub(crate) Vec<u8>);

impl KeyWriter {
    /// Appends raw bytes; only for fixed-size parts or as the last part.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends text, ended so that a longer text sorts after its own beginning. A NUL inside is escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }
}

/// Takes a key apart again.
#[derive(Debug)]
pub struct KeyReader<'a>(pub(crate) &'a [u8]);

impl<'a> KeyReader<'a> {
    /// Takes `N` bytes.
    pub fn raw<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Error::Corrupt("key too short"))?;
        self.0 = tail;
        Ok(*head)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Takes a text written by [`KeyWriter::text`].
    pub fn text(&mut self) -> Result<String, Error> {
        let mut text = Vec::new();
        loop {
            match self.raw::<1>()? {
                [0] => match self.raw::<1>()? {
                    [0] => break,
                    _ => text.push(0),
                },
                [byte] => text.push(byte),
            }
        }
        String::from_utf8(text).map_err(|_| Error::Corrupt("key is not UTF-8"))
    }
}

/// A typed key. `write` must keep order; `read` undoes it.
pub trait Key: Sized {
    /// Appends this key.
    fn write(&self, to: &mut KeyWriter);
    /// Takes it back.
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error>;
}

macro_rules! unsigned {
    ($($t:ty),*) => {$(
        impl Key for $t {
            fn write(&self, to: &mut KeyWriter) {
                to.raw(&self.to_be_bytes());
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
                from.raw().map(Self::from_be_bytes)
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

impl Key for i64 {
    fn write(&self, to: &mut KeyWriter) {
        to.raw(&(self.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        from.raw().map(|bytes| (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
    }
}

impl Key for () {
    fn write(&self, _: &mut KeyWriter) {}
    fn read(_: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(())
    }
}

impl Key for [u8; 32] {
    fn write(&self, to: &mut KeyWriter) {
        to.raw(self);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        from.raw()
    }
}

impl Key for String {
    fn write(&self, to: &mut KeyWriter) {
        to.text(self);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        from.text()
    }
}

macro_rules! identifiers {
    ($($t:ty),*) => {$(
        impl Key for $t {
            fn write(&self, to: &mut KeyWriter) {
                to.text(self.as_str());
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
                from.text()?.try_into().map_err(|_| Error::Corrupt("identifier in key"))
            }
        }
    )*};
}
identifiers!(OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId);

impl Key for OwnedDeviceId {
    fn write(&self, to: &mut KeyWriter) {
        to.text(self.as_str());
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(from.text()?.into())
    }
}

impl Key for chappe_kv::Position {
    fn write(&self, to: &mut KeyWriter) {
        self.0.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        u64::read(from).map(Self)
    }
}

macro_rules! tuples {
    ($(($($t:ident),+))*) => {$(
        impl<$($t: Key),+> Key for ($($t,)+) {
            fn write(&self, to: &mut KeyWriter) {
                #[expect(non_snake_case, reason = "type names double as bindings")]
                let ($($t,)+) = self;
                $($t.write(to);)+
            }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
                Ok(($($t::read(from)?,)+))
            }
        }
    )*};
}
tuples! { (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, F) }
