//! How values are kept: hand-packed where rows are many and small, JSON where they are documents.

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
