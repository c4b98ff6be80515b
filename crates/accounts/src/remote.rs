//! What the accounts of this server need from those of other servers: a port that the federation fills.

use std::collections::{BTreeMap, BTreeSet};

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
    to_device::{ALTOGETHER, LONGEST, message},
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

/// A local user who asks for keys of others.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who asks.
    pub user: OwnedUserId,
    /// Those of the users asked about who share a room with the asker: what changes of their devices is told to this server.
    pub shares_with: BTreeSet<OwnedUserId>,
}

/// Other servers' users. Implemented by `federation`; every call ends within the time a client waits (10 seconds or so).
#[async_trait]
pub trait RemoteUsers: Send + Sync {
    /// With whom of some users a local user shares a room: looked up once for all that one request asks.
    async fn asker(&self, user: &UserId, about: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>) -> Asker;

    /// Keys of users of `server` (all of them its own) for a local user; no devices named means all. What is cached and
    /// known to be fresh (users whose device lists this server follows) is answered from there.
    async fn query_keys(
        &self,
        asker: &Asker,
        server: &ServerName,
        users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<RemoteKeys, RemoteError>;

    /// The same of users of any server, as far as nobody has to be asked: the keys of those whose device lists this server
    /// follows and has.
    async fn kept_keys(&self, asker: &Asker, users: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>)
    -> RemoteKeys;

    /// Whether this server talks with `server`: if not, it is asked nothing.
    fn talks_with(&self, server: &ServerName) -> bool;

    /// Whether keys would be claimed of `server` now: it is talked with, and is not away, or only since a moment.
    fn would_claim(&self, server: &ServerName) -> bool;

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

/// Messages by user and device.
type Messages<'a> = BTreeMap<&'a UserId, BTreeMap<&'a str, &'a RawValue>>;

/// The content of an `m.direct_to_device` EDU.
#[derive(Serialize)]
struct DirectToDevice<'a> {
    sender: &'a UserId,
    r#type: &'a str,
    message_id: &'a str,
    messages: Messages<'a>,
}

/// What one server is sent: in several EDUs where one would be so long that the server may not take it.
#[derive(Default)]
struct Parcels<'a> {
    edus: Vec<Messages<'a>>,
    /// Bytes of the messages in the last of them.
    bytes: usize,
}

impl<'a> Parcels<'a> {
    fn add(&mut self, user: &'a UserId, device: &'a str, content: &'a RawValue) {
        let bytes = user.as_str().len() + device.len() + content.get().len();
        if self.bytes + bytes <= LONGEST
            && let Some(edu) = self.edus.last_mut()
        {
            edu.entry(user).or_default().insert(device, content);
            self.bytes += bytes;
        } else {
            self.edus.push(BTreeMap::from([(user, BTreeMap::from([(device, content)]))]));
            self.bytes = bytes;
        }
    }
}

/// The outbox rows that carry to-device messages to users of other servers (server-server API, "Send-to-device
/// messaging"). `message_id` must be new, and seven characters shorter than ids may be: where a server is sent several EDUs
/// it is the beginning of their ids. Hand the result to [`crate::Accounts::send_to_devices`]. [`Error::TooLarge`],
/// [`Error::TooMany`] servers.
pub fn to_device_for_servers(sending: &Sending<'_>, message_id: &str) -> Result<Tx, Error> {
    let mut servers: BTreeMap<&ServerName, Parcels<'_>> = BTreeMap::new();
    let mut bytes = 0;
    for (user, recipients) in sending.messages {
        let messages: Vec<(&str, &RawValue)> = match recipients {
            Recipients::All(content) => vec![("*", &**content)],
            Recipients::Devices(devices) => {
                devices.iter().map(|(device, content)| (DeviceId::as_str(device), &**content)).collect()
            }
        };
        for (device, content) in messages {
            bytes += message(sending, content)?.len();
            servers.entry(user.server_name()).or_default().add(user, device, content);
        }
        if bytes > ALTOGETHER {
            return Err(Error::TooLarge("to-device messages"));
        }
    }
    if servers.len() > MOST_SERVERS {
        return Err(Error::TooMany("servers in one request"));
    }
    let (sender, r#type) = (sending.sender, sending.event_type);
    let mut tx = Tx::new();
    for (server, parcels) in servers {
        for (number, messages) in parcels.edus.into_iter().enumerate() {
            let id = if number == 0 { message_id.to_owned() } else { format!("{message_id}.{number}") };
            let edu = serde_json::to_string(&DirectToDevice { sender, r#type, message_id: &id, messages });
            let edu = edu.map_err(|error| Error::BadJson(error.to_string()))?;
            tx.enqueue(server, &OutboxItem::ToDevice(edu));
        }
    }
    Ok(tx)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use chappe_kv::{Db, Memory};
    use chappe_store::{Store, outbox::OutboxItem};
    use ruma::{OwnedDeviceId, OwnedUserId, ServerName, server_name, user_id};
    use serde_json::{Value, json, value::to_raw_value};

    use super::{LONGEST, MOST_SERVERS, to_device_for_servers};
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

    #[tokio::test]
    async fn many_messages_go_in_several_edus_that_other_servers_take() {
        let object = |length: usize| to_raw_value(&json!({ "x": "x".repeat(length - 8) })).unwrap();
        assert_eq!(object(9).get().len(), 9);
        let to = |user: &str, lengths: &[usize]| {
            let named =
                |(n, length): (usize, &usize)| (OwnedDeviceId::from(format!("D{n}")), object(*length));
            let devices = lengths.iter().enumerate().map(named).collect();
            (OwnedUserId::try_from(user).unwrap(), Recipients::Devices(devices))
        };
        let messages = [
            to("@a:hs2", &[30_000, 30_000, 30_000]),
            to("@b:hs2", &[LONGEST, 10, 30_000]),
            to("@c:hs3", &[10]),
            to("@d:hs3", &[]),
        ];
        let sending =
            Sending { sender: user_id!("@a:hs1"), once: None, event_type: "m.test", messages: &messages };
        let store = Store::new(Db::new(Memory::default()));
        store.commit(to_device_for_servers(&sending, "m").unwrap()).await.unwrap();
        let sent = async |server: &ServerName| {
            let rows = store.read().outbox(server, 100).await.unwrap();
            let edu = |item: OutboxItem| match item {
                OutboxItem::ToDevice(edu) => serde_json::from_str::<Value>(&edu).unwrap(),
                other => panic!("{other:?}"),
            };
            rows.into_iter().map(|(_, item)| edu(item)).collect::<Vec<_>>()
        };
        let edus = sent(server_name!("hs2")).await;
        let names = |edu: &Value| -> Vec<String> {
            let users: BTreeMap<String, BTreeMap<String, Value>> =
                serde_json::from_value(edu["messages"].clone()).unwrap();
            let names = |(user, devices): (String, BTreeMap<String, Value>)| {
                devices.into_keys().map(move |device| format!("{user} {device}")).collect::<Vec<_>>()
            };
            users.into_iter().flat_map(names).collect()
        };
        assert_eq!(
            edus.iter().map(names).collect::<Vec<_>>(),
            [
                vec!["@a:hs2 D0", "@a:hs2 D1"],
                vec!["@a:hs2 D2"],
                vec!["@b:hs2 D0"],
                vec!["@b:hs2 D1", "@b:hs2 D2"],
            ]
        );
        let ids: BTreeSet<_> = edus.iter().map(|edu| edu["message_id"].as_str().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from(["m", "m.1", "m.2", "m.3"]));
        assert_eq!(sent(server_name!("hs3")).await.iter().map(names).collect::<Vec<_>>(), [["@c:hs3 D0"]]);
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
