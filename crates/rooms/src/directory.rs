//! Aliases and the public room directory.

mod aliases;
mod hierarchy;
mod network;
mod public;
mod service;
mod summary;

pub(crate) use self::network::Lists;
pub use self::{
    aliases::Visibility,
    hierarchy::{HierarchyPage, HierarchyRequest, HierarchyRoom},
    public::{PublicRooms, PublicRoomsRequest},
    summary::Summary,
};

#[cfg(test)]
mod tests;
