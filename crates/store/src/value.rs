//! How values are kept: hand-packed where rows are many and small, JSON where they are documents.

use chappe_kv::Position;
use serde::{Serialize, de::DeserializeOwned};

use crate::tx::Error;

/// A typed value.
pub trait Value: Sized {
    /// Bytes to store.
    fn to_bytes(&self) -> Vec<u8>;
    /// Back from stored bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error>;
}

/// A document kept as JSON: fields may be added with `#[serde(default)]` without a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Value for Json<T> {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("stored documents have string keys and no failing serializer")
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map(Self).map_err(|_| Error::Corrupt("JSON value"))
    }
}

/// A value with the position of the commit that wrote it; written by [`Tx::put_now`](crate::Tx::put_now).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At<T> {
    /// The commit.
    pub position: Position,
    /// What it wrote.
    pub value: T,
}

impl<T: Value> Value for At<T> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.position.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.value.to_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (position, rest) = bytes.split_first_chunk::<8>().ok_or(Error::Corrupt("position of value"))?;
        Ok(Self { position: Position(u64::from_be_bytes(*position)), value: T::from_bytes(rest)? })
    }
}

impl Value for () {
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
    fn from_bytes(_: &[u8]) -> Result<Self, Error> {
        Ok(())
    }
}

impl Value for Vec<u8> {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Ok(bytes.to_vec())
    }
}

impl Value for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_utf8(bytes.to_vec()).map_err(|_| Error::Corrupt("text value"))
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Value for $t {
            fn to_bytes(&self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }
            fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
                bytes.try_into().map(Self::from_be_bytes).map_err(|_| Error::Corrupt("integer value"))
            }
        }
    )*};
}
integers!(u8, u32, u64, i64);
