//! What the accounts of this server need from those of other servers: a port that the federation fills.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chappe_store::{Tx, outbox::OutboxItem};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, ServerName, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    Claim, ClaimedKeys, Error, Profile, Recipients, Sending, UserInfo,
    to_device::{ALTOGETHER, message},
};

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

/// Other servers that one request sends to-device messages to.
const MOST_SERVERS: usize = 500;

/// The content of an `m.direct_to_device` EDU.
#[derive(Serialize)]
struct DirectToDevice<'a> {
    sender: &'a UserId,
    r#type: &'a str,
    message_id: &'a str,
    messages: BTreeMap<&'a UserId, BTreeMap<&'a str, &'a RawValue>>,
}

/// The outbox rows that carry to-device messages to users of other servers, one EDU per server (server-server API,
/// "Send-to-device messaging"). `message_id` must be new. Hand the result to [`crate::Accounts::send_to_devices`].
/// [`Error::TooLarge`], [`Error::TooMany`] servers.
pub fn to_device_for_servers(sending: &Sending<'_>, message_id: &str) -> Result<Tx, Error> {
    let mut servers: BTreeMap<&ServerName, BTreeMap<&UserId, BTreeMap<&str, &RawValue>>> = BTreeMap::new();
    let mut bytes = 0;
    for (user, recipients) in sending.messages {
        let devices: BTreeMap<&str, &RawValue> = match recipients {
            Recipients::All(content) => BTreeMap::from([("*", &**content)]),
            Recipients::Devices(devices) => {
                devices.iter().map(|(device, content)| (DeviceId::as_str(device), &**content)).collect()
            }
        };
        for content in devices.values() {
            bytes += message(sending, content)?.len();
        }
        if bytes > ALTOGETHER {
            return Err(Error::TooLarge("to-device messages"));
        }
        servers.entry(user.server_name()).or_default().insert(user, devices);
    }
    if servers.len() > MOST_SERVERS {
        return Err(Error::TooMany("servers in one request"));
    }
    let (sender, r#type) = (sending.sender, sending.event_type);
    let mut tx = Tx::new();
    for (server, messages) in servers {
        let edu = serde_json::to_string(&DirectToDevice { sender, r#type, message_id, messages });
        let edu = edu.map_err(|error| Error::BadJson(error.to_string()))?;
        tx.enqueue(server, &OutboxItem::ToDevice(edu));
    }
    Ok(tx)
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedUserId, user_id};
    use serde_json::{json, value::to_raw_value};

    use super::{MOST_SERVERS, to_device_for_servers};
    use crate::{Error, Recipients, Sending};

    fn sent(messages: &[(OwnedUserId, Recipients)]) -> Result<bool, Error> {
        let sending = Sending { sender: user_id!("@a:hs1"), once: None, event_type: "m.test", messages };
        to_device_for_servers(&sending, "m").map(|tx| !tx.is_empty())
    }

    #[test]
    fn messages_for_other_servers_have_a_size_and_few_go_to_many() {
        let to = |n: usize, pad: usize| {
            let content = to_raw_value(&json!({ "pad": "x".repeat(pad) })).unwrap();
            (OwnedUserId::try_from(format!("@b:hs{n}.example")).unwrap(), Recipients::All(content))
        };
        assert!(sent(&[to(1, 1_000), to(2, 60_000)]).unwrap());
        assert!(matches!(sent(&[to(1, 70_000)]), Err(Error::TooLarge(_))));
        let list = (to(1, 0).0, Recipients::All(to_raw_value(&json!([])).unwrap()));
        assert!(matches!(sent(&[list]), Err(Error::BadJson(_))));
        let many: Vec<_> = (0..MOST_SERVERS).map(|n| to(n, 0)).collect();
        assert!(sent(&many).unwrap());
        assert!(matches!(sent(&[many, vec![to(MOST_SERVERS, 0)]].concat()), Err(Error::TooMany(_))));
        let of_one_server = |n: usize| (OwnedUserId::try_from(format!("@u{n}:hs")).unwrap(), to(0, 60_000).1);
        let much: Vec<_> = (0..1_200).map(of_one_server).collect();
        assert!(matches!(sent(&much), Err(Error::TooLarge(_))));
    }

    #[test]
    fn messages_that_nobody_can_read_are_refused() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for content in [r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#, r#"{"a":1,"a":1}"#, &deep] {
            let content = serde_json::value::RawValue::from_string(content.to_owned()).unwrap();
            let to = (user_id!("@b:hs2").to_owned(), Recipients::All(content));
            assert!(matches!(sent(&[to]), Err(Error::BadJson(_))));
        }
    }
}
