//! A table: a number, a class, and the types of its keys and values.

use chappe_kv::Class;

use crate::{key::Key, value::Value};

/// One table. Declare with [`table!`](crate::table).
pub trait Table {
    /// First byte of every key; listed in [`crate::registry`].
    const INFO: TableInfo;
    /// Typed key.
    type Key: Key;
    /// Typed value.
    type Value: Value;
}

/// What the engine and the registry know of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// First byte of every key.
    pub number: u8,
    /// Its name, for operators.
    pub name: &'static str,
    /// How it is used.
    pub class: Class,
}

/// Declares tables: `table! { /// doc\n Heads = HEADS: (RoomNid) => RoomHead; }` where `HEADS` is a constant of the registry.
#[macro_export]
macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $info:ident: $key:ty => $value:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl $crate::Table for $name {
            const INFO: $crate::TableInfo = $crate::registry::$info;
            type Key = $key;
            type Value = $value;
        }
    )*};
}
