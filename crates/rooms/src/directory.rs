//! Aliases and the public room directory.

mod aliases;
mod hierarchy;
mod public;
mod service;
mod summary;

pub use self::{
    aliases::Visibility,
    hierarchy::{HierarchyPage, HierarchyRequest, HierarchyRoom},
    public::{PublicRooms, PublicRoomsRequest},
    summary::Summary,
};

#[cfg(test)]
mod tests;
