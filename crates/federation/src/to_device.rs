//! To-device messages between servers, `m.direct_to_device`.

use std::collections::BTreeMap;

use chappe_accounts::{Recipients, Sending};
use chappe_store::{OutboxItem, Tx};
use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Federation;

/// Messages of one EDU to one server are cut at about this size, in bytes.
const EDU_BYTES: usize = 48 * 1024;

/// The EDU's content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) sender: OwnedUserId,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) message_id: String,
    pub(crate) messages: BTreeMap<OwnedUserId, Devices>,
}

/// Device id, or `*` for all → content.
pub(crate) type Devices = BTreeMap<String, Box<RawValue>>;

/// The same for the inbox.
pub(crate) fn recipients(mut devices: Devices) -> Vec<Recipients> {
    let all = devices.remove("*").map(Recipients::All);
    let single = devices.into_iter().map(|(device, content)| (device.into(), content)).collect();
    let single = Some(Recipients::Devices(single));
    let some = |recipients: &Recipients| !matches!(recipients, Recipients::Devices(devices) if devices.is_empty());
    all.into_iter().chain(single).filter(some).collect()
}

fn devices(recipients: &Recipients) -> Devices {
    match recipients {
        Recipients::All(content) => BTreeMap::from([("*".to_owned(), content.clone())]),
        Recipients::Devices(devices) => {
            devices.iter().map(|(device, content)| (device.to_string(), content.clone())).collect()
        }
    }
}

impl Federation {
    /// Sends to devices of local and of remote users, all in one transaction. `sending.messages` may name users of any
    /// server. Gives whether it was sent now, `false` when the same was sent before.
    pub async fn send_to_devices(&self, sending: Sending<'_>) -> Result<bool, chappe_accounts::Error> {
        let us = self.network().server();
        let (local, remote): (Vec<_>, Vec<_>) =
            sending.messages.iter().cloned().partition(|(user, _)| user.server_name() == us);
        let mut tx = Tx::new();
        for (server, content) in self.edus(&sending, &remote) {
            tx.enqueue(&server, &OutboxItem::ToDevice(content));
        }
        self.0.accounts.send_to_devices(Sending { messages: &local, ..sending }, tx).await
    }

    /// The EDUs for other servers, none much larger than its limit unless a single message is.
    fn edus(
        &self,
        sending: &Sending<'_>,
        remote: &[(OwnedUserId, Recipients)],
    ) -> Vec<(OwnedServerName, String)> {
        let mut servers: BTreeMap<OwnedServerName, Vec<(OwnedUserId, Devices)>> = BTreeMap::new();
        for (user, recipients) in remote {
            let server = user.server_name().to_owned();
            if self.network().allowed().permits(&server) {
                servers.entry(server).or_default().push((user.clone(), devices(recipients)));
            }
        }
        let mut edus = Vec::new();
        for (server, users) in servers {
            let (mut messages, mut size) = (BTreeMap::<OwnedUserId, Devices>::new(), 0);
            for (user, devices) in users {
                for (device, content) in devices {
                    if size > 0 && size + content.get().len() > EDU_BYTES {
                        edus.extend(self.edu(sending, std::mem::take(&mut messages)).map(|edu| (server.clone(), edu)));
                        size = 0;
                    }
                    size += content.get().len();
                    messages.entry(user.clone()).or_default().insert(device, content);
                }
            }
            edus.extend(self.edu(sending, messages).map(|edu| (server.clone(), edu)));
        }
        edus
    }

    fn edu(&self, sending: &Sending<'_>, messages: BTreeMap<OwnedUserId, Devices>) -> Option<String> {
        let message = Message {
            sender: sending.sender.to_owned(),
            event_type: sending.event_type.to_owned(),
            message_id: self.network().world().token(32),
            messages,
        };
        (!message.messages.is_empty()).then(|| serde_json::to_string(&message).ok()).flatten()
    }
}
