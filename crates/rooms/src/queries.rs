//! What rooms ask application services; crate `appservices` implements it.

use async_trait::async_trait;
use ruma::{RoomAliasId, UserId};

/// Asks the application services whose namespaces hold an identifier that nobody has here. A service that says yes has
/// made what was asked for by then.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Whether a service has this user, of this server.
    async fn has_user(&self, user: &UserId) -> bool;

    /// Whether a service has this alias, of this server.
    async fn has_alias(&self, alias: &RoomAliasId) -> bool;
}

/// Of a server without application services.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

#[async_trait]
impl Queries for NoServices {
    async fn has_user(&self, _: &UserId) -> bool {
        false
    }

    async fn has_alias(&self, _: &RoomAliasId) -> bool {
        false
    }
}
