//! One transaction: what goes into it, and sending it (server-server API, "Transactions").

use bytes::Bytes;
use chappe_store::{
    Error, EventNum, Index, OutboxItem, RoomNid,
    outbox::{Announced, AnnouncedDevices, OutboxKey},
};
use http::Method;
use ruma::{
    OwnedDeviceId, ServerName, UserId,
    api::{IncomingResponseExt as _, federation::transactions::send_transaction_message::v1::Response},
    encryption::DeviceKeys,
    serde::Raw,
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Sender,
    fleeting::{Receipts, edu},
    untaken::Untaken,
};

/// PDUs in a transaction at most.
const PDUS: usize = 50;
/// EDUs in a transaction at most.
const EDUS: usize = 100;
/// Bytes of PDUs and EDUs after which no more are added.
const BYTES: usize = 4 << 20;

/// How much of the queue goes into one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// As much as is allowed.
    Full,
    /// One row, for so many transactions.
    Single(usize),
}

impl Width {
    pub(super) fn after_success(self) -> Self {
        match self {
            Self::Full | Self::Single(0 | 1) => Self::Full,
            Self::Single(left) => Self::Single(left - 1),
        }
    }
}

/// A transaction to be sent.
#[derive(Debug)]
pub(super) struct Batch {
    /// The same again when it is sent again, even after a restart.
    pub(super) id: String,
    /// The rows of the outbox that are in it.
    pub(super) rows: Vec<OutboxKey>,
    pub(super) pdus: Vec<Box<RawValue>>,
    pub(super) edus: Vec<Value>,
    /// What of the EDUs is in memory alone, and worth sending again.
    pub(super) receipts: Receipts,
}

impl Batch {
    /// Its last row.
    pub(super) fn last(&self) -> Option<(u64, Index)> {
        self.rows.last().map(|(_, position, index)| (*position, *index))
    }
}

#[derive(Serialize)]
struct Body<'a> {
    origin: &'a ServerName,
    origin_server_ts: u64,
    pdus: &'a [Box<RawValue>],
    edus: &'a [Value],
}

impl Sender {
    /// The next transaction for a destination, `None` when nothing waits. With `tried`, the transaction that failed
    /// before: its rows, no less and no more.
    pub(super) async fn collect(
        &self,
        destination: &ServerName,
        tried: Option<(u64, Index)>,
        width: Width,
    ) -> Result<Option<Batch>, Error> {
        let limit = if width == Width::Full { PDUS + EDUS } else { 1 };
        let waiting = self.0.network.store().read().outbox(destination, limit).await?;
        let mut batch = Batch {
            id: String::new(),
            rows: Vec::new(),
            pdus: Vec::new(),
            edus: Vec::new(),
            receipts: Receipts::new(),
        };
        let mut bytes = 0;
        for (key, item) in waiting {
            let beyond = tried.is_some_and(|tried| (key.1, key.2) > tried);
            if beyond || batch.pdus.len() >= PDUS || batch.edus.len() >= EDUS || bytes >= BYTES {
                break;
            }
            bytes += self.add(&mut batch, item).await?;
            batch.rows.push(key);
        }
        if tried.is_none() && width == Width::Full {
            let (edus, receipts) = self.0.lanes.take_fleeting(destination, EDUS - batch.edus.len());
            batch.edus.extend(edus);
            batch.receipts = receipts;
        }
        batch.id = match (batch.rows.first(), batch.rows.last()) {
            (Some((_, p0, Index(i0))), Some((_, p1, Index(i1)))) => format!("{p0}.{i0}-{p1}.{i1}"),
            _ if batch.edus.is_empty() => return Ok(None),
            _ => format!("f{}", self.0.network.world().token(20)),
        };
        Ok(Some(batch))
    }

    /// Writes an item out; gives its size in bytes. What is no longer there is left out.
    async fn add(&self, batch: &mut Batch, item: OutboxItem) -> Result<usize, Error> {
        let edu = match item {
            OutboxItem::Pdu { room, event } => {
                let pdu = match self.0.rooms.outgoing(RoomNid(room), EventNum(event)).await {
                    Ok(pdu) => pdu,
                    // It was purged meanwhile.
                    Err(chappe_rooms::Error::NotFound(_)) => return Ok(0),
                    Err(chappe_rooms::Error::Store(error)) => return Err(error),
                    Err(_) => return Err(Error::Corrupt("event to be sent")),
                };
                let size = pdu.get().len();
                batch.pdus.push(pdu);
                return Ok(size);
            }
            OutboxItem::ToDevice(content) => {
                // Who wrote it may have meant to: it goes no further, and stops nothing else.
                let Ok(content) = serde_json::from_str::<Value>(&content) else {
                    tracing::warn!("messages to devices that nobody can read are left out");
                    return Ok(0);
                };
                Some(edu("m.direct_to_device", &content))
            }
            OutboxItem::Device { user, device, stream_id } => {
                Some(edu("m.device_list_update", &self.device_update(&user, &device, stream_id).await?))
            }
            OutboxItem::SigningKeys(user) => {
                self.signing_keys(&user).await.map(|content| edu("m.signing_key_update", &content))
            }
        };
        let size = edu.as_ref().map_or(0, |edu| edu.to_string().len());
        batch.edus.extend(edu);
        Ok(size)
    }

    async fn device_update(
        &self,
        user: &UserId,
        device: &OwnedDeviceId,
        stream_id: u64,
    ) -> Result<Value, Error> {
        let mut update = json!({ "user_id": user, "device_id": device, "stream_id": stream_id });
        if stream_id > 1 {
            update["prev_id"] = json!([stream_id - 1]);
        }
        let devices = match self.0.accounts.federated_devices(user).await {
            Ok(devices) => devices,
            Err(chappe_accounts::Error::Store(error)) => return Err(error),
            Err(_) => Vec::new(),
        };
        match devices.into_iter().find(|(id, ..)| id == device) {
            Some((_, keys, name)) => {
                update["keys"] = value(&keys);
                if let Some(name) = name {
                    update["device_display_name"] = Value::String(name);
                }
            }
            // Without keys, but there.
            None if matches!(self.0.accounts.device(user, device).await, Ok(Some(_))) => {}
            None => update["deleted"] = Value::Bool(true),
        }
        Ok(update)
    }

    async fn signing_keys(&self, user: &UserId) -> Option<Value> {
        let keys = self.0.accounts.public_keys(None, user, &[]).await.ok()?;
        let mut update = json!({ "user_id": user });
        if let Some(master) = keys.master {
            update["master_key"] = serde_json::from_str(master.json().get()).ok()?;
        }
        if let Some(own) = keys.self_signing {
            update["self_signing_key"] = serde_json::from_str(own.json().get()).ok()?;
        }
        Some(update)
    }

    /// Sends a transaction. What the other server thinks of single events is for the log.
    pub(super) async fn transmit(&self, destination: &ServerName, batch: &Batch) -> Result<(), Untaken> {
        let network = &self.0.network;
        let body = Body {
            origin: network.server(),
            origin_server_ts: network.world().now(),
            pdus: &batch.pdus,
            edus: &batch.edus,
        };
        let body = serde_json::to_vec(&body).map_err(|error| Untaken::Malformed(error.to_string()))?;
        let uri = format!("/_matrix/federation/v1/send/{}", batch.id);
        let http = network.signed(destination, Method::PUT, &uri, Bytes::from(body))?;
        let answer = network.reach(destination, http, network.long().insisting().up_to(1 << 20)).await?;
        if !answer.status().is_success() {
            return Err(Untaken::refused(destination, &answer));
        }
        let (head, body) = answer.into_parts();
        let answer = Response::try_from_http_response(http::Response::from_parts(head, &body[..]));
        for (event, result) in answer.map(|answer| answer.pdus).unwrap_or_default() {
            if let Err(error) = result {
                tracing::info!(%destination, %event, error, "another server refused an event");
            }
        }
        Ok(())
    }

    /// The stream id that other servers were last told of a user's devices.
    pub(crate) async fn announced(&self, user: &UserId) -> Result<Announced, Error> {
        let found = self.0.network.store().read().get::<AnnouncedDevices>(&user.to_owned()).await?;
        Ok(found.map(|announced| announced.0).unwrap_or_default())
    }
}

fn value(keys: &Raw<DeviceKeys>) -> Value {
    serde_json::from_str(keys.json().get()).unwrap_or_default()
}
