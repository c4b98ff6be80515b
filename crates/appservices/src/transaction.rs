//! One transaction: what goes into it.
//!
//! Specification: application service API, "Pushing events", with MSC3202 and MSC4203 under their unstable names.

use std::collections::{BTreeMap, BTreeSet};

use chappe_accounts::KeyCounts;
use chappe_rules::{Pdu, appservice::Registration, client, version, visibility::membership};
use chappe_store::{
    EventNum, Position, RoomNid,
    receipts::ReceiptKind,
    services::{ServiceItem, ServiceKey},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::room::member::MembershipState,
};
use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{Error, Services};

/// Rows of the queue in a transaction at most.
pub(crate) const ROWS: usize = 100;
/// Bytes after which no more are added.
const BYTES: usize = 2 << 20;
/// To-device messages of one commit for one device.
const LETTERS: usize = 1_000;

type OfDevice<T> = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>>;

/// A transaction in the making.
#[derive(Default)]
pub(crate) struct Draft {
    events: Vec<Box<RawValue>>,
    pub(crate) ephemeral: Vec<Box<RawValue>>,
    to_device: Vec<Value>,
    changed: BTreeSet<OwnedUserId>,
    left: BTreeSet<OwnedUserId>,
    keys: BTreeSet<(OwnedUserId, OwnedDeviceId)>,
    counts: OfDevice<BTreeMap<OneTimeKeyAlgorithm, u32>>,
    unused_fallback: OfDevice<Vec<OneTimeKeyAlgorithm>>,
    /// What leaves the inboxes once it is taken.
    pub(crate) inboxes: BTreeMap<(OwnedUserId, OwnedDeviceId), u64>,
    /// The last row of the queue that is in it.
    pub(crate) last: Option<(u64, u32)>,
    bytes: usize,
}

#[derive(Serialize)]
struct Body<'a> {
    events: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral: Option<&'a [Box<RawValue>]>,
    #[serde(rename = "de.sorunome.msc2409.ephemeral", skip_serializing_if = "Option::is_none")]
    old_ephemeral: Option<&'a [Box<RawValue>]>,
    #[serde(rename = "de.sorunome.msc2409.to_device", skip_serializing_if = "<[_]>::is_empty")]
    to_device: &'a [Value],
    #[serde(rename = "org.matrix.msc3202.device_lists", skip_serializing_if = "Option::is_none")]
    device_lists: Option<DeviceLists<'a>>,
    #[serde(
        rename = "org.matrix.msc3202.device_one_time_keys_count",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    counts: &'a OfDevice<BTreeMap<OneTimeKeyAlgorithm, u32>>,
    /// What early readers of MSC3202 called it.
    #[serde(
        rename = "org.matrix.msc3202.device_one_time_key_counts",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    old_counts: &'a OfDevice<BTreeMap<OneTimeKeyAlgorithm, u32>>,
    #[serde(
        rename = "org.matrix.msc3202.device_unused_fallback_key_types",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    unused_fallback: &'a OfDevice<Vec<OneTimeKeyAlgorithm>>,
}

#[derive(Serialize)]
struct DeviceLists<'a> {
    changed: &'a BTreeSet<OwnedUserId>,
    left: &'a BTreeSet<OwnedUserId>,
}

impl Draft {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.ephemeral.is_empty()
            && self.to_device.is_empty()
            && self.changed.is_empty()
            && self.left.is_empty()
            && self.counts.is_empty()
    }

    /// The body of the request.
    pub(crate) fn body(&self, service: &Registration) -> Vec<u8> {
        let told = !self.ephemeral.is_empty();
        let lists = !(self.changed.is_empty() && self.left.is_empty());
        let body = Body {
            events: &self.events,
            ephemeral: (told && service.wants.ephemeral).then_some(&self.ephemeral),
            old_ephemeral: (told && service.wants.old_ephemeral).then_some(&self.ephemeral),
            to_device: &self.to_device,
            device_lists: lists.then_some(DeviceLists { changed: &self.changed, left: &self.left }),
            counts: &self.counts,
            old_counts: &self.counts,
            unused_fallback: &self.unused_fallback,
        };
        serde_json::to_vec(&body).expect("a transaction has string keys and no failing serializer")
    }

    fn add_event(&mut self, event: Box<RawValue>) {
        self.bytes += event.get().len();
        self.events.push(event);
    }

    fn add_ephemeral(&mut self, event: &Value) {
        if let Ok(event) = to_raw_value(event) {
            self.bytes += event.get().len();
            self.ephemeral.push(event);
        }
    }

    fn add_keys(&mut self, (user, device): (OwnedUserId, OwnedDeviceId), counts: KeyCounts) {
        let fallback = self.unused_fallback.entry(user.clone()).or_default();
        fallback.insert(device.clone(), counts.unused_fallback);
        self.counts.entry(user).or_default().insert(device, counts.one_time_keys);
    }
}

/// Whether an item is an event of a room.
fn is_of(item: &ServiceItem, nid: u32) -> bool {
    matches!(item, ServiceItem::Event { room, .. } if *room == nid)
}

impl Services {
    /// Makes a transaction of what waits for a service, oldest first.
    pub(crate) async fn draft(
        &self,
        service: &Registration,
        rows: Vec<(ServiceKey, ServiceItem)>,
    ) -> Result<Draft, Error> {
        let mut draft = Draft::default();
        let mut rows = rows.into_iter().peekable();
        while let Some((key, item)) = rows.next() {
            let mut last = (key.1, key.2);
            if let ServiceItem::Event { room, event } = item {
                // Events of one room that follow each other are read together.
                let mut nums = vec![EventNum(event)];
                let same = |next: &(ServiceKey, ServiceItem)| is_of(&next.1, room);
                while let Some((key, ServiceItem::Event { event, .. })) = rows.next_if(same) {
                    nums.push(EventNum(event));
                    last = (key.1, key.2);
                }
                self.add_events(&mut draft, RoomNid(room), &nums).await?;
            } else {
                self.add(&mut draft, service, item).await?;
            }
            draft.last = Some(last);
            if draft.bytes > BYTES {
                break;
            }
        }
        self.count_keys(&mut draft).await?;
        Ok(draft)
    }

    async fn add_events(&self, draft: &mut Draft, nid: RoomNid, nums: &[EventNum]) -> Result<(), Error> {
        match self.render(nid, nums).await {
            Ok(events) => {
                for event in events {
                    draft.add_event(event);
                }
            }
            // What cannot be read must not keep back what comes after it.
            Err(Error::Rooms(chappe_rooms::Error::Store(chappe_store::Error::Corrupt(what)))) => {
                tracing::error!(room = nid.0, events = ?nums, what, "events are not told to application services");
            }
            Err(Error::Rooms(chappe_rooms::Error::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn render(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<Box<RawValue>>, Error> {
        let view = self.0.deps.rooms.view_of(nid).await?;
        let events = view.load_kept(nums).await?;
        Ok(view.render_for_service(events).await?)
    }

    async fn add(&self, draft: &mut Draft, service: &Registration, item: ServiceItem) -> Result<(), Error> {
        match item {
            ServiceItem::Event { room, event } => {
                self.add_events(draft, RoomNid(room), &[EventNum(event)]).await?;
            }
            ServiceItem::OutOfBand { user, room } => {
                if let Some(event) = self.out_of_band(&user, &room).await? {
                    draft.add_event(event);
                }
            }
            ServiceItem::Receipt { room, user, at } => {
                if let Some(event) = self.receipts(service, RoomNid(room), &user, at).await? {
                    draft.add_ephemeral(&event);
                }
            }
            ServiceItem::ToDevice { user, device, at } => {
                self.add_letters(draft, service, (user, device), at).await?;
            }
            ServiceItem::DeviceList { user } => {
                draft.left.remove(&user);
                draft.changed.insert(user);
            }
            ServiceItem::NoLongerShared { user } => {
                draft.changed.remove(&user);
                draft.left.insert(user);
            }
            ServiceItem::Keys { user, device } => {
                draft.keys.insert((user, device));
            }
        }
        Ok(())
    }

    /// A membership in a room that this server is not in, as the event that says so.
    async fn out_of_band(&self, user: &UserId, room: &RoomId) -> Result<Option<Box<RawValue>>, Error> {
        let Some(found) = self.0.deps.store.read().out_of_band(user, room).await? else { return Ok(None) };
        let found = found.value.0;
        let known = found.version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
        let rules = version::rules(&known.unwrap_or(RoomVersionId::V11));
        let id = OwnedEventId::try_from(found.event_id).ok();
        let pdu = rules.zip(id).and_then(|(rules, id)| Pdu::restore(rules, id, found.event.get()).ok());
        // Whoever is out without an event that says so is not told by the one that let them in.
        let says_so =
            |pdu: &Pdu| matches!(membership(Some(pdu)), MembershipState::Leave | MembershipState::Ban);
        let pdu = pdu.filter(|pdu| found.membership != "leave" || says_so(pdu));
        let unsigned = client::Unsigned { invite_room_state: found.state, ..client::Unsigned::default() };
        Ok(pdu.map(|pdu| client::render(&pdu, client::Form::Full, &unsigned)))
    }

    /// What a commit said of how far a user has read. Private receipts are for the services of the user alone.
    async fn receipts(
        &self,
        service: &Registration,
        nid: RoomNid,
        user: &UserId,
        at: u64,
    ) -> Result<Option<Value>, Error> {
        let reader = self.0.deps.store.read();
        let mut content: Map<String, Value> = Map::new();
        for (key, receipt) in reader.user_receipts(nid, user).await? {
            let kind = match key.kind {
                ReceiptKind::Public => "m.read",
                ReceiptKind::Private if service.covers_user(user) => "m.read.private",
                ReceiptKind::Private => continue,
            };
            if receipt.position.0 != at {
                continue;
            }
            let mut said = json!({ "ts": receipt.value.ts });
            if !key.thread.is_empty() {
                said["thread_id"] = key.thread.into();
            }
            let event = content.entry(receipt.value.event.0.to_string()).or_insert_with(|| json!({}));
            event[kind][user.as_str()] = said;
        }
        if content.is_empty() {
            return Ok(None);
        }
        let room = reader.room_id(nid).await?;
        Ok(Some(json!({ "type": "m.receipt", "room_id": room, "content": content })))
    }

    /// The messages of one commit to one device. They leave the inbox of a user who is the service's alone; others may
    /// sync.
    async fn add_letters(
        &self,
        draft: &mut Draft,
        service: &Registration,
        inbox: (OwnedUserId, OwnedDeviceId),
        at: u64,
    ) -> Result<(), Error> {
        let reader = self.0.deps.store.read();
        let (after, up_to) = (Position(at.saturating_sub(1)), Position(at));
        let accounts = &self.0.deps.accounts;
        let letters = accounts.to_device_messages(&reader, &inbox.0, &inbox.1, after, up_to, LETTERS).await?;
        for letter in letters {
            draft.bytes += letter.event.get().len();
            let Ok(Value::Object(mut event)) = serde_json::from_str(letter.event.get()) else { continue };
            event.insert("to_user_id".to_owned(), inbox.0.as_str().into());
            event.insert("to_device_id".to_owned(), inbox.1.as_str().into());
            draft.to_device.push(event.into());
        }
        if service.owns_user(&inbox.0) {
            draft.inboxes.insert(inbox.clone(), at);
        }
        draft.keys.insert(inbox);
        Ok(())
    }

    async fn count_keys(&self, draft: &mut Draft) -> Result<(), Error> {
        let reader = self.0.deps.store.read();
        for (user, device) in std::mem::take(&mut draft.keys) {
            let counts = self.0.deps.accounts.key_counts(&reader, &user, &device).await?;
            draft.add_keys((user, device), counts);
        }
        Ok(())
    }
}
