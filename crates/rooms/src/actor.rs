//! Who acts, and the transaction an action belongs to.

use std::sync::Arc;

use chappe_rules::appservice::Registration;
use ruma::{OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId};

/// What kind of user an actor is: to the access policy, and where guests are told apart. The protocol's own rules make
/// no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The access policy applies.
    #[default]
    Ordinary,
    /// A server administrator: exempt from the access policy.
    Administrator,
    /// A server administrator who looks into a room that it need not be in: sees every event of it.
    Overseer,
    /// A guest: an ordinary user who enters only rooms that let guests in.
    Guest,
}

/// A local user who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: OwnedUserId,
    /// The device the request came from; transaction ids are its own.
    pub device: Option<OwnedDeviceId>,
    /// What kind of user this is.
    pub standing: Standing,
    /// The application service that acts as the user.
    pub appservice: Option<Arc<Registration>>,
}

impl Actor {
    /// An ordinary user without a device: for work that the server does in the user's name.
    pub fn user(user: &UserId) -> Self {
        Self { user: user.to_owned(), device: None, standing: Standing::Ordinary, appservice: None }
    }
}

/// The transaction id of a client's request. The same id from the same device gives the same event.
pub type Transaction = OwnedTransactionId;
