//! One transaction: what goes into it, and sending it (server-server API, "Transactions").

use std::sync::Arc;

use bytes::Bytes;
use chappe_store::{
    Error, EventNum, OutboxItem, RoomNid,
    outbox::{Announced, AnnouncedDevices, DestinationState, Outbox, OutboxKey},
};
use http::Method;
use ruma::{
    OwnedDeviceId, ServerName, UserId,
    api::{IncomingResponseExt as _, federation::transactions::send_transaction_message::v1::Response},
    encryption::DeviceKeys,
    serde::Raw,
};
use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Sender,
    announce::read,
    fleeting::{Taken, edu},
    untaken::Untaken,
};
use crate::backoff::Tried;

/// PDUs in a transaction at most.
const PDUS: usize = 50;
/// EDUs in a transaction at most.
const EDUS: usize = 100;
/// Bytes of PDUs and EDUs after which no more are added.
const BYTES: usize = 4 << 20;
/// Long transactions under way at once: 128 MiB, and twice that while what is in them is written into one text.
pub(super) const LONG_AT_ONCE: usize = 32;
/// Bytes after which no more are added while there are so many, and rows that are read then.
const SHORT: usize = 128 << 10;
const SHORT_ROWS: usize = 20;

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
    /// How many PDUs and EDUs there are.
    items: usize,
    /// As it is sent.
    pub(super) body: Bytes,
    /// What of the EDUs is in memory alone, and worth sending again.
    pub(super) taken: Taken,
    /// For as long as it is there, if it is long.
    _long: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// What of it has to be remembered if it is not taken.
    pub(super) fn tried(&self) -> Option<Tried> {
        self.rows.last().map(|(_, position, index)| ((*position, *index), self.id.clone()))
    }

    /// Whether less would be nothing.
    pub(super) fn is_smallest(&self) -> bool {
        self.rows.len() <= 1 && self.items <= 1
    }
}

/// What goes into a transaction.
#[derive(Default)]
struct Contents {
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
    bytes: usize,
}

impl Contents {
    fn is_full(&self, most: usize) -> bool {
        self.pdus.len() >= PDUS || self.edus.len() >= EDUS || self.bytes >= most
    }

    fn add_pdu(&mut self, pdu: Box<RawValue>) {
        self.bytes += pdu.get().len();
        self.pdus.push(pdu);
    }

    fn add_edu(&mut self, edu: &Value) -> Result<(), Error> {
        let edu = to_raw_value(edu).map_err(|_| Error::Corrupt("EDU to be sent"))?;
        self.bytes += edu.get().len();
        self.edus.push(edu);
        Ok(())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    origin: &'a ServerName,
    origin_server_ts: u64,
    pdus: &'a [Box<RawValue>],
    edus: &'a [Box<RawValue>],
}

impl Sender {
    /// The next transaction for a destination, `None` when nothing has to go now. If one was tried before, that one: its rows
    /// and nothing else, under its id; or a part of it, where many others are long now or it was not reached last time.
    pub(super) async fn collect(
        &self,
        destination: &ServerName,
        DestinationState { tried, transaction, failures, .. }: &DestinationState,
        width: Width,
    ) -> Result<Option<Batch>, Error> {
        // Those that may be dead take no room from others.
        let is_there = *failures == 0;
        let long = is_there.then(|| Arc::clone(&self.0.long).try_acquire_owned().ok()).flatten();
        let (limit, most) = match (width, &long) {
            (Width::Single(_), _) => (1, SHORT),
            (Width::Full, Some(_)) => (PDUS + EDUS, BYTES),
            (Width::Full, None) => (SHORT_ROWS, SHORT),
        };
        let (mut contents, mut rows) = (Contents::default(), Vec::new());
        for (key, item) in self.queued(destination, limit).await? {
            let beyond = tried.is_some_and(|tried| (key.1, key.2) > tried);
            if beyond || contents.is_full(most) {
                break;
            }
            self.add(&mut contents, &key, item).await?;
            rows.push(key);
        }
        let mut taken = Taken::default();
        if tried.is_none() && width == Width::Full {
            let now = self.0.network.world().instant();
            self.0.lanes.drop_stale(destination, now);
            let (due, room_for) = (rows.is_empty().then_some(now), EDUS - contents.edus.len());
            let (edus, fleeting) = self.0.lanes.take_fleeting(destination, room_for, due);
            edus.iter().try_for_each(|edu| contents.add_edu(edu))?;
            taken = fleeting;
        }
        let items = contents.pdus.len() + contents.edus.len();
        if rows.is_empty() && items == 0 {
            return Ok(None);
        }
        // A part of what was tried is another transaction.
        let last = rows.last().map(|(_, position, index)| (*position, *index));
        let is_same = tried.is_some() && last == *tried && width == Width::Full;
        let again = transaction.clone().filter(|_| is_same);
        let id = again.unwrap_or_else(|| self.new_id());
        let body = self.body(&contents);
        let long = long.filter(|_| body.len() > SHORT);
        Ok(Some(Batch { id, rows, items, body, taken, _long: long }))
    }

    fn body(&self, Contents { pdus, edus, .. }: &Contents) -> Bytes {
        let network = &self.0.network;
        let (origin, origin_server_ts) = (network.server(), network.world().now());
        let body = serde_json::to_vec(&Body { origin, origin_server_ts, pdus, edus });
        body.expect("texts and a number are written").into()
    }

    fn new_id(&self) -> String {
        let world = self.0.network.world();
        format!("{}.{}", world.now(), world.token(8))
    }

    /// Whether a destination takes a transaction with nothing in it: if not, it is not what was in another one that it refused.
    pub(super) async fn takes_nothing(&self, destination: &ServerName) -> bool {
        let Ok(place) = self.place(destination).await else { return false };
        let nothing = Batch { id: self.new_id(), body: self.body(&Contents::default()), ..Batch::default() };
        self.transmit_in(place, destination, &nothing).await.is_ok()
    }

    /// Writes an item out. What is no longer there is left out.
    async fn add(&self, to: &mut Contents, key: &OutboxKey, item: OutboxItem) -> Result<(), Error> {
        let edu = match item {
            OutboxItem::Pdu { room, event } => {
                if let Some(pdu) = self.event(key, RoomNid(room), EventNum(event)).await? {
                    to.add_pdu(pdu);
                }
                return Ok(());
            }
            OutboxItem::Event(json) => {
                to.add_pdu(kept(json)?);
                return Ok(());
            }
            OutboxItem::ToDevice(content) => {
                // Who wrote it may have meant to: it goes no further, and stops nothing else.
                let Ok(content) = serde_json::from_str::<Value>(&content) else {
                    tracing::warn!("messages to devices that nobody can read are left out");
                    return Ok(());
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
                self.signing_keys(&user).await?.map(|content| edu("m.signing_key_update", &content))
            }
        };
        edu.map_or(Ok(()), |edu| to.add_edu(&edu))
    }

    /// An event as it is now; none if it was purged meanwhile.
    async fn event(
        &self,
        key: &OutboxKey,
        room: RoomNid,
        event: EventNum,
    ) -> Result<Option<Box<RawValue>>, Error> {
        match self.0.rooms.outgoing(room, event).await {
            Ok(pdu) => Ok(Some(pdu)),
            // With its whole room, maybe: then it was kept for those that it waits for.
            Err(chappe_rooms::Error::NotFound(_)) => {
                match self.0.network.store().read().get::<Outbox>(key).await? {
                    Some(OutboxItem::Event(json)) => kept(json).map(Some),
                    _ => Ok(None),
                }
            }
            Err(chappe_rooms::Error::Store(error)) => Err(error),
            Err(_) => Err(Error::Corrupt("event to be sent")),
        }
    }

    async fn device_update(
        &self,
        user: &UserId,
        device: &OwnedDeviceId,
        stream_id: u64,
    ) -> Result<Value, Error> {
        let mut update = json!({ "user_id": user, "device_id": device, "stream_id": stream_id });
        let devices = read(self.0.accounts.federated_devices(user).await)?.unwrap_or_default();
        match devices.into_iter().find(|(id, ..)| id == device) {
            Some((_, keys, name)) => {
                update["keys"] = value(&keys);
                if let Some(name) = name.filter(|_| self.0.network.config().device_names) {
                    update["device_display_name"] = Value::String(name);
                }
            }
            // Without keys, but there.
            None if read(self.0.accounts.device(user, device).await)?.flatten().is_some() => {}
            None => update["deleted"] = Value::Bool(true),
        }
        Ok(update)
    }

    async fn signing_keys(&self, user: &UserId) -> Result<Option<Value>, Error> {
        let Some(keys) = read(self.0.accounts.public_keys(None, user, &[]).await)? else { return Ok(None) };
        let mut update = json!({ "user_id": user });
        let parts = [("master_key", keys.master), ("self_signing_key", keys.self_signing)];
        for (part, key) in parts.into_iter().filter_map(|(part, key)| Some((part, key?))) {
            let Ok(key) = serde_json::from_str(key.json().get()) else { return Ok(None) };
            update[part] = key;
        }
        Ok(Some(update))
    }

    /// Sends a transaction. What the other server thinks of single events is for the log.
    pub(super) async fn transmit(&self, destination: &ServerName, batch: &Batch) -> Result<(), Untaken> {
        let network = &self.0.network;
        let uri = format!("/_matrix/federation/v1/send/{}", batch.id);
        let http = network.signed(destination, Method::PUT, &uri, batch.body.clone())?;
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

/// An event that was kept for those that it waits for.
fn kept(json: String) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(json).map_err(|_| Error::Corrupt("event to be sent"))
}

fn value(keys: &Raw<DeviceKeys>) -> Value {
    serde_json::from_str(keys.json().get()).unwrap_or_default()
}
