//! What the accounts of this server need from those of other servers: a port that the federation fills.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chappe_store::{Tx, outbox::OutboxItem};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Map, json, value::RawValue};

use crate::{Claim, ClaimedKeys, Profile, Recipients, UserInfo};

/// Why another server did not answer a question about its users.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// It does not know the user, or does not tell: 404.
    #[error("not found")]
    NotFound,
    /// It was not reached, or answered nonsense: 502.
    #[error("the other server could not be asked: {0}")]
    Unavailable(String),
}

/// Public keys of the users of one other server.
#[derive(Clone, Debug, Default)]
pub struct RemoteKeys {
    /// Identity keys by user and device.
    pub devices: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    /// Master keys.
    pub master: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Self-signing keys.
    pub self_signing: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
}

/// Other servers' users. Implemented by `federation`; every call ends within the time a client waits (10 seconds or so).
#[async_trait]
pub trait RemoteUsers: Send + Sync {
    /// Keys of users of `server` (all of them its own) for a local user; no devices named means all. What is cached and
    /// known to be fresh (users whose device lists this server follows) is answered from there.
    async fn query_keys(
        &self,
        asker: &UserId,
        server: &ServerName,
        users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<RemoteKeys, RemoteError>;

    /// Claims one-time keys of users of `server` (all of them its own).
    async fn claim_keys(&self, server: &ServerName, claim: Claim) -> Result<ClaimedKeys, RemoteError>;

    /// The profile of a user of another server, or one field of it.
    async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Profile, RemoteError>;

    /// How the accounts of users of `server` stand; those it says nothing of are left out.
    async fn user_infos(
        &self,
        server: &ServerName,
        users: Vec<OwnedUserId>,
    ) -> Result<BTreeMap<OwnedUserId, UserInfo>, RemoteError>;
}

/// The outbox rows that carry to-device messages to users of other servers, one EDU per server (server-server API,
/// "Send-to-device messaging"). `message_id` must be new. Hand the result to [`crate::Accounts::send_to_devices`].
pub fn to_device_for_servers(
    sender: &UserId,
    event_type: &str,
    message_id: &str,
    messages: &[(OwnedUserId, Recipients)],
) -> Tx {
    let mut servers: BTreeMap<OwnedServerName, Map<String, serde_json::Value>> = BTreeMap::new();
    for (user, recipients) in messages {
        let devices: BTreeMap<&str, &RawValue> = match recipients {
            Recipients::All(content) => BTreeMap::from([("*", &**content)]),
            Recipients::Devices(devices) => {
                devices.iter().map(|(device, content)| (DeviceId::as_str(device), &**content)).collect()
            }
        };
        let of_server = servers.entry(user.server_name().to_owned()).or_default();
        of_server.insert(user.to_string(), json!(devices));
    }
    let mut tx = Tx::new();
    for (server, messages) in servers {
        let edu = json!({
            "sender": sender, "type": event_type, "message_id": message_id, "messages": messages,
        });
        tx.enqueue(&server, &OutboxItem::ToDevice(edu.to_string()));
    }
    tx
}
