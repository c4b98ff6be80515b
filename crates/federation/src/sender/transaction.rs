//! One transaction: what goes into it, and sending it (server-server API, "Transactions").

use bytes::Bytes;
use chappe_store::{
    Error, EventNum, OutboxItem, RoomNid,
    outbox::{Announced, AnnouncedDevices, DestinationState, OutboxKey},
};
use http::Method;
use ruma::{
    OwnedDeviceId, ServerName, UserId,
    api::{IncomingResponseExt as _, federation::transactions::send_transaction_message::v1::Response},
    encryption::DeviceKeys,
    serde::Raw,
};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    PATIENCE, Sender,
    fleeting::{Receipts, edu},
    untaken::Untaken,
};
use crate::backoff::Tried;

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
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The same again when it is sent again because it was not taken, even after a restart. Where this server stopped before it
    /// knew, what was in it comes under another id. Never that of another transaction, even of a server that is set up anew or
    /// went back to an earlier state of its disk: those who remember it would take this one for dealt with.
    pub(super) id: String,
    /// The rows of the outbox that are in it.
    pub(super) rows: Vec<OutboxKey>,
    pub(super) pdus: Vec<Box<RawValue>>,
    pub(super) edus: Vec<Value>,
    /// What of the EDUs is in memory alone, and worth sending again.
    pub(super) receipts: Receipts,
}

impl Batch {
    /// What of it has to be remembered if it is not taken.
    pub(super) fn tried(&self) -> Option<Tried> {
        self.rows.last().map(|(_, position, index)| ((*position, *index), self.id.clone()))
    }

    /// Whether less would be nothing.
    pub(super) fn is_smallest(&self) -> bool {
        self.rows.len() <= 1 && self.pdus.len() + self.edus.len() <= 1
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
    /// The next transaction for a destination, `None` when nothing has to go now. If one was tried before, that one: its rows
    /// and nothing else, under its id.
    pub(super) async fn collect(
        &self,
        destination: &ServerName,
        DestinationState { tried, transaction, .. }: &DestinationState,
        width: Width,
    ) -> Result<Option<Batch>, Error> {
        let limit = if width == Width::Full { PDUS + EDUS } else { 1 };
        let waiting = self.queued(destination, limit).await?;
        let (mut batch, mut bytes) = (Batch::default(), 0);
        for (key, item) in waiting {
            let beyond = tried.is_some_and(|tried| (key.1, key.2) > tried);
            if beyond || batch.pdus.len() >= PDUS || batch.edus.len() >= EDUS || bytes >= BYTES {
                break;
            }
            bytes += self.add(&mut batch, item).await?;
            batch.rows.push(key);
        }
        if tried.is_none() && width == Width::Full {
            let now = batch.rows.is_empty().then(|| self.0.network.world().instant());
            let (edus, receipts) = self.0.lanes.take_fleeting(destination, EDUS - batch.edus.len(), now);
            batch.edus.extend(edus);
            batch.receipts = receipts;
        }
        if batch.rows.is_empty() && batch.edus.is_empty() {
            return Ok(None);
        }
        // A part of what was tried is another transaction.
        let again = transaction.as_ref().filter(|_| tried.is_some() && width == Width::Full);
        batch.id = again.cloned().unwrap_or_else(|| self.new_id());
        Ok(Some(batch))
    }

    fn new_id(&self) -> String {
        let world = self.0.network.world();
        format!("{}.{}", world.now(), world.token(8))
    }

    /// Whether a destination takes a transaction with nothing in it: if not, it is not what was in another one that it refused.
    pub(super) async fn takes_nothing(&self, destination: &ServerName) -> bool {
        let Ok(place) = self.0.failing.acquire().await else { return false };
        let nothing = Batch { id: self.new_id(), ..Batch::default() };
        self.transmit_in((place, Some(PATIENCE)), destination, &nothing).await.is_ok()
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
                let mut update = self.device_update(&user, &device, stream_id).await?;
                if stream_id > 1 {
                    update["prev_id"] = json!([stream_id - 1]);
                }
                Some(edu("m.device_list_update", &update))
            }
            OutboxItem::Introduction { user, device, stream_id } => {
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
        // What stands before a server that is away may answer in its place, and well.
        if serde_json::from_slice::<Map<String, Value>>(answer.body()).is_err() {
            return Err(Untaken::Malformed("the answer is none of a homeserver".to_owned()));
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
