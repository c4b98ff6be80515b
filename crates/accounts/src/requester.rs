//! Who is asking.

use std::sync::Arc;

use chappe_rules::appservice::Registration;
use chappe_store::accounts::{OwnRate, UserKind};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId};

use crate::Error;

/// The local user and device behind a request, as an access token or an application service's token proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// Who.
    pub user_id: OwnedUserId,
    /// With which device; an application service may act without one.
    pub device_id: Option<OwnedDeviceId>,
    /// What the account is for.
    pub kind: UserKind,
    /// Whether this is a server administrator.
    pub admin: bool,
    /// Whether the account may read but not act.
    pub suspended: bool,
    /// Whether the token is one that an OAuth client got: such sessions prove nothing with passwords.
    pub oauth: bool,
    /// How often the user may ask, where an administrator has said so.
    pub rate: Option<OwnRate>,
    /// The application service that acts as the user.
    pub appservice: Option<Arc<Registration>>,
    /// On what terms it was let in.
    pub admission: Admission,
}

/// On what terms a requester was let in, for requests that take long: see [`crate::Accounts::still_admits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Of what was known of the user then.
    pub(crate) version: u64,
    /// When the account ends, in milliseconds since 1970.
    pub(crate) until: Option<u64>,
    /// What is stored of the user's access token; application services have their own.
    pub(crate) token: Option<[u8; 32]>,
    /// The number of the log-in that the token came from.
    pub(crate) log_in: Option<u64>,
}

impl Requester {
    /// The device; requests that need one are refused without.
    pub fn device(&self) -> Result<&DeviceId, Error> {
        self.device_id.as_deref().ok_or(Error::Forbidden("this request needs a device"))
    }

    /// Whether this is a guest.
    pub fn is_guest(&self) -> bool {
        self.kind == UserKind::Guest
    }

    /// Refuses suspended accounts: for everything that others would see.
    pub fn may_act(&self) -> Result<(), Error> {
        if self.suspended { Err(Error::Suspended) } else { Ok(()) }
    }

    /// Refuses guests.
    pub fn not_guest(&self) -> Result<(), Error> {
        if self.is_guest() { Err(Error::Forbidden("guests may not do this")) } else { Ok(()) }
    }

    /// Refuses everybody but server administrators.
    pub fn must_be_admin(&self) -> Result<(), Error> {
        if self.admin { Ok(()) } else { Err(Error::Forbidden("only for administrators of this server")) }
    }
}
