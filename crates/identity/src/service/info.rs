//! What the map says of an address: to everybody, and to the homeservers of the network.

use chappe_store::identity_service::MapTarget;
use ruma::OwnedServerName;
use serde::Serialize;

use super::IdentityService;
use crate::{Email, Error};

/// The public answer of `info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// The server to talk to: that of the user to whom the address is bound, if it is.
    pub hs: OwnedServerName,
    /// The one for callers outside the protected network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_hs: Option<OwnedServerName>,
    /// Where the account should be, if that is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_hs: Option<OwnedServerName>,
}

/// The answer of `internal-info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InternalInfo {
    /// The server that the map names.
    pub hs: OwnedServerName,
    /// The one for callers outside the protected network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_hs: Option<OwnedServerName>,
    /// Whether only the invited may sign up.
    pub requires_invite: bool,
    /// Whether an invitation waits for the address.
    pub invited: bool,
}

impl IdentityService {
    /// Where an address belongs, for everybody; `None` for nowhere.
    pub async fn info(&self, address: &Email) -> Result<Option<Info>, Error> {
        let target = self.target(address);
        // What is bound is public; the addresses of accounts are not.
        let bound = self.association(address).await?;
        let current = bound.map(|bound| bound.user.server_name().to_owned());
        Ok(match (target, current) {
            (None, None) => None,
            (None, Some(hs)) => Some(Info { hs, shadow_hs: None, new_hs: None }),
            (Some(target), Some(current)) if current != target.hs => {
                Some(Info { hs: current, shadow_hs: target.shadow_hs, new_hs: Some(target.hs) })
            }
            (Some(target), _) => Some(Info { hs: target.hs, shadow_hs: target.shadow_hs, new_hs: None }),
        })
    }

    /// Where an address belongs and whether it may sign up there, for the network's own servers.
    pub async fn internal_info(&self, address: &Email) -> Result<Option<InternalInfo>, Error> {
        let Some(target) = self.target(address) else { return Ok(None) };
        let MapTarget { hs, shadow_hs, requires_invite } = target;
        let invited = self.inner.identity.is_invited(address).await?;
        Ok(Some(InternalInfo { hs, shadow_hs, requires_invite, invited }))
    }

    /// What the map says; without a map this server takes those whom its own allow-list lets in.
    fn target(&self, address: &Email) -> Option<MapTarget> {
        let identity = &self.inner.identity.inner;
        let map = identity.map.map();
        if !map.is_empty() {
            return map.target(address).map(|(target, _)| target.clone());
        }
        let listed = identity.config.get().addresses == crate::Addresses::Any
            || identity.allow_list.check(address).is_some();
        listed.then(|| MapTarget { hs: self.server().clone(), shadow_hs: None, requires_invite: false })
    }
}
