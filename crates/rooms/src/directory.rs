//! Aliases and the public room directory.

mod aliases;
mod hierarchy;
mod network;
mod public;
mod service;
mod summary;
mod walks;

pub use self::{
    aliases::Visibility,
    hierarchy::{HierarchyPage, HierarchyRequest, HierarchyRoom},
    public::{PublicRooms, PublicRoomsRequest},
    summary::Summary,
};
pub(crate) use self::{network::Lists, walks::Walks};

#[cfg(test)]
mod tests;
