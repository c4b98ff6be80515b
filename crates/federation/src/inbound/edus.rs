//! EDUs of other servers: each only about the sending server's own users, in rooms where they are.

use std::collections::BTreeMap;

use chappe_accounts::{Error as AccountError, RemoteUpdate, Sending};
use chappe_rooms::RemoteReceipt;
use chappe_rules::{json, presence::is_known};
use chappe_store::{
    Error, Reader, RoomNid, Tx,
    accounts_keys::RemoteList,
    members::{RemoteRooms, RoomServers},
};
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UInt, UserId,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, PresenceUpdate, SigningKeyUpdateContent, TypingContent,
    },
    events::receipt::ReceiptThread,
    presence::PresenceState,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::to_device;
use crate::{Federation, gate};

/// Updates about users whose devices this server does not track that it takes from one server in a minute.
const STRANGERS_PER_MINUTE: u32 = 200;
/// Rooms in one receipt EDU that are looked at, and users in each.
const RECEIPT_ROOMS: usize = 200;
const RECEIPT_USERS: usize = 500;
/// Rooms of a user that are looked at at once.
const ROOMS: usize = 50;
/// Users in one presence EDU that are looked at.
const PRESENCE_USERS: usize = 100;
/// The longest id that is heard of, in bytes: many become keys of what is kept.
const LONGEST_ID: usize = 255;

/// How many updates about untracked users came lately, by server.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<(u64, BTreeMap<OwnedServerName, u32>)>);

impl Strangers {
    fn admit(&self, origin: &ServerName, now: u64) -> bool {
        let minute = now / 60_000;
        let mut guard = self.0.lock();
        let (last, came) = &mut *guard;
        if *last != minute {
            (*last, *came) = (minute, BTreeMap::new());
        }
        let came = came.entry(origin.to_owned()).or_default();
        *came = came.saturating_add(1);
        *came <= STRANGERS_PER_MINUTE
    }
}

#[derive(Deserialize)]
struct Edu {
    edu_type: String,
    content: Box<RawValue>,
}

/// A part of an EDU whose entries are read one by one: what is wrong with one is no fault of the others.
type Entries = BTreeMap<String, Box<RawValue>>;

/// `m.presence`.
#[derive(Deserialize)]
struct Presences {
    push: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Shown {
    user_id: OwnedUserId,
    presence: PresenceState,
    status_msg: Option<String>,
    /// Left out by some servers that do not know it.
    last_active_ago: Option<UInt>,
    #[serde(default)]
    currently_active: bool,
}

#[derive(Deserialize)]
struct ReceiptEntry {
    event_ids: Vec<OwnedEventId>,
    #[serde(default)]
    data: ReceiptData,
}

impl ReceiptEntry {
    fn of<'a>(&'a self, user: &'a UserId) -> Option<RemoteReceipt<'a>> {
        let event = self.event_ids.last().filter(|event| event.as_bytes().len() <= LONGEST_ID)?;
        Some(RemoteReceipt { user, event, ts: self.data.ts.into(), thread: self.data.thread_id.clone() })
    }
}

#[derive(Default, Deserialize)]
struct ReceiptData {
    #[serde(default)]
    ts: UInt,
    #[serde(default)]
    thread_id: ReceiptThread,
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

fn content<T: DeserializeOwned>(edu: &Edu) -> Option<T> {
    read(&edu.content)
}

/// Whether a user is one for whom `origin` may speak.
fn is_of(origin: &ServerName, user: &UserId) -> bool {
    user.server_name() == origin && user.as_bytes().len() <= LONGEST_ID
}

/// How users of `origin` are, of those that a presence EDU tells of.
fn presences(edu: &Edu, origin: &ServerName) -> Vec<PresenceUpdate> {
    let Some(Presences { push }) = content(edu) else { return Vec::new() };
    let update = |entry: &RawValue| {
        let Shown { user_id, presence, status_msg, last_active_ago, currently_active } = read(entry)?;
        let mut update = PresenceUpdate::new(user_id, presence, last_active_ago.unwrap_or_default());
        (update.status_msg, update.currently_active) = (status_msg, currently_active);
        (is_of(origin, &update.user_id) && is_known(&update.presence)).then_some(update)
    };
    push.iter().filter_map(|entry| update(entry)).take(PRESENCE_USERS).collect()
}

/// The public receipts of a room, of those in one part of a receipt EDU.
fn receipts(room: &RawValue) -> Vec<(OwnedUserId, ReceiptEntry)> {
    let users = read::<Entries>(room).and_then(|mut kinds| read::<Entries>(&kinds.remove("m.read")?));
    let entry = |(user, entry): (String, Box<RawValue>)| {
        Some((OwnedUserId::try_from(user).ok()?, read::<ReceiptEntry>(&entry)?))
    };
    users.unwrap_or_default().into_iter().take(RECEIPT_USERS).filter_map(entry).collect()
}

/// Whether an EDU says what its server, once it was taken, does not say again.
fn is_said_once(kind: &str) -> bool {
    matches!(kind, "m.direct_to_device" | "m.device_list_update" | "m.signing_key_update")
}

/// Whether something was not taken for a reason that may be gone when it comes again.
fn may_pass(error: &AccountError) -> bool {
    matches!(error, AccountError::Busy | AccountError::Store(Error::Conflict | Error::Engine(_)))
}

/// Whether nothing was missed between what is known and an update. Some servers count a list that is fetched by what changed
/// last of anybody's, which no update names: then those heard of before count, all of which that list holds.
fn follows(update: &DeviceListUpdateContent, known: &RemoteList) -> bool {
    let mut before = update.prev_id.iter().map(|prev| u64::from(*prev));
    let heard = !update.prev_id.is_empty() && before.clone().all(|prev| known.heard.contains(&prev));
    heard || before.any(|prev| prev == known.stream_id)
}

impl Federation {
    /// Takes the EDUs of a transaction one by one; a bad one, or one too deep to be read, never stops the others.
    /// An error: one that is said only once could not be kept. Those after it are left for when all of them come again, so
    /// that they do not overtake it.
    pub(super) async fn take_edus(
        &self,
        origin: &OwnedServerName,
        edus: Vec<Box<RawValue>>,
    ) -> Result<(), AccountError> {
        for edu in edus {
            if !json::is_readable(edu.get().as_bytes()) {
                continue;
            }
            let Ok(edu) = serde_json::from_str::<Edu>(edu.get()) else { continue };
            let Err(error) = self.take_edu(origin, &edu).await else { continue };
            tracing::warn!(%origin, kind = edu.edu_type, %error, "an EDU was not taken");
            if is_said_once(&edu.edu_type) && may_pass(&error) {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take_edu(&self, origin: &ServerName, edu: &Edu) -> Result<(), AccountError> {
        match edu.edu_type.as_str() {
            "m.typing" => {
                if let Some(typing) = content::<TypingContent>(edu) {
                    self.take_typing(origin, typing).await?;
                }
            }
            "m.receipt" => {
                if let Some(rooms) = content::<Entries>(edu) {
                    self.take_receipts(origin, rooms).await?;
                }
            }
            "m.presence" => {
                for update in presences(edu, origin) {
                    self.0.fleeting.presence(update).await;
                }
            }
            "m.direct_to_device" => self.take_to_device(origin, edu).await?,
            "m.device_list_update" => {
                if let Some(update) = content::<DeviceListUpdateContent>(edu)
                    && is_of(origin, &update.user_id)
                {
                    self.take_device_update(origin, update).await?;
                }
            }
            "m.signing_key_update" => {
                if let Some(update) = content::<SigningKeyUpdateContent>(edu)
                    && is_of(origin, &update.user_id)
                {
                    self.take_signing_keys(origin, update).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The room, if a user of `origin` is in it and may be heard there.
    async fn heard_in(
        &self,
        reader: &Reader<'_>,
        origin: &ServerName,
        room: &OwnedRoomId,
        user: &UserId,
    ) -> Result<Option<RoomNid>, Error> {
        if !is_of(origin, user) {
            return Ok(None);
        }
        let Some(nid) = reader.room_nid(room).await? else { return Ok(None) };
        let heard = reader.may_be_joined(nid, user).await?;
        Ok((heard && gate::allows(reader, nid, origin).await?).then_some(nid))
    }

    async fn take_typing(&self, origin: &ServerName, typing: TypingContent) -> Result<(), Error> {
        let TypingContent { room_id, user_id, typing, .. } = typing;
        let reader = self.network().store().read();
        if self.heard_in(&reader, origin, &room_id, &user_id).await?.is_some() {
            drop(reader);
            self.0.fleeting.typing(&room_id, &user_id, typing).await;
        }
        Ok(())
    }

    async fn take_receipts(&self, origin: &ServerName, rooms: Entries) -> Result<(), Error> {
        for (room, kinds) in rooms.into_iter().take(RECEIPT_ROOMS) {
            let Ok(room) = OwnedRoomId::try_from(room) else { continue };
            if !self.acl_allows(origin, &room).await? {
                continue;
            }
            let entries = receipts(&kinds);
            let entries = entries.iter().filter(|(user, _)| is_of(origin, user));
            let receipts: Vec<_> = entries.filter_map(|(user, entry)| entry.of(user)).collect();
            if let Err(error) = self.0.rooms.take_receipts(origin, &room, &receipts).await {
                tracing::info!(%origin, %room, %error, "receipts were not taken");
            }
        }
        Ok(())
    }

    async fn take_to_device(&self, origin: &ServerName, edu: &Edu) -> Result<(), AccountError> {
        let Some(message) = content::<to_device::Message>(edu) else { return Ok(()) };
        if !is_of(origin, &message.sender) {
            return Ok(());
        }
        let us = self.network().server();
        let messages: Vec<_> = message
            .messages
            .into_iter()
            .filter(|(user, _)| user.server_name() == us)
            .flat_map(|(user, devices)| {
                to_device::recipients(devices).into_iter().map(move |recipients| (user.clone(), recipients))
            })
            .collect();
        let sending = Sending {
            sender: &message.sender,
            once: Some((origin.as_str(), &message.id)),
            event_type: &message.event_type,
            messages: &messages,
        };
        self.0.accounts.send_to_devices(sending, Tx::new()).await.map(drop)
    }

    async fn take_device_update(
        &self,
        origin: &ServerName,
        update: DeviceListUpdateContent,
    ) -> Result<(), AccountError> {
        let accounts = &self.0.accounts;
        let user = update.user_id.clone();
        self.0.devices.note_news(&user);
        let Some(known) = accounts.remote_list(&user).await? else {
            // Nobody here was given keys of this user; who just came to share a room was told to ask for them.
            if !self.0.sender.has_just_come(&user) {
                self.take_news_of_stranger(origin, &user).await?;
            }
            return Ok(());
        };
        self.note_unplaced(&user).await;
        let (stream_id, follows) = (u64::from(update.stream_id), follows(&update, &known));
        let device = match update.deleted {
            Some(true) => None,
            _ => Some((update.keys, update.device_display_name)),
        };
        // A server that went back to a backup counts some of them again: only what says the same is the same.
        if !known.stale
            && stream_id == known.stream_id
            && accounts.holds_device(&user, &update.device_id, device.as_ref()).await?
        {
            return Ok(());
        }
        if self.is_unmet(&user).await? {
            return Ok(());
        }
        if known.stale || stream_id <= known.stream_id || !follows {
            accounts.miss_update(&user, stream_id).await?;
            self.0.devices.resync_soon(self, &user);
            return Ok(());
        }
        let update = RemoteUpdate {
            stream_id: Some(stream_id),
            devices: [(update.device_id, device)].into(),
            ..RemoteUpdate::default()
        };
        accounts.update_remote(&user, update).await
    }

    /// The devices or keys of a user changed of whom nobody here was given any. Those who share a room are told; where nobody
    /// does nothing is kept, and whoever comes to asks anew.
    async fn take_news_of_stranger(&self, origin: &ServerName, user: &UserId) -> Result<(), AccountError> {
        if self.0.inbound.strangers.admit(origin, self.network().world().now()) {
            if self.is_met(user).await? {
                self.0.accounts.mark_stale(user).await?;
            }
            self.note_unplaced(user).await;
        }
        Ok(())
    }

    /// Whether nobody here shares a room with a user of whom something is kept: that is no longer believed then.
    pub(crate) async fn is_unmet(&self, user: &UserId) -> Result<bool, AccountError> {
        if self.is_met(user).await? {
            return Ok(false);
        }
        self.0.accounts.doubt_known(&[user.to_owned()]).await?;
        // Who came into a room meanwhile may have been shown what was kept.
        Ok(!self.is_met(user).await?)
    }

    /// Whether somebody here shares a room with a user of another server.
    async fn is_met(&self, user: &UserId) -> Result<bool, Error> {
        let (reader, us) = (self.network().store().read(), self.network().server());
        let user = user.to_owned();
        let mut from = RoomNid(0);
        loop {
            let rooms = reader.scan_from::<RemoteRooms>(&user, &(user.clone(), from), ROOMS).await?;
            let Some(((_, last), ())) = rooms.last() else { return Ok(false) };
            from = RoomNid(last.0.saturating_add(1));
            let ours: Vec<_> = rooms.iter().map(|((_, nid), ())| (*nid, us.to_owned())).collect();
            let joined = reader.get_many::<RoomServers>(&ours).await?;
            if joined.into_iter().flatten().any(|joined| joined > 0) {
                return Ok(true);
            }
            if rooms.len() < ROOMS {
                return Ok(false);
            }
        }
    }

    async fn note_unplaced(&self, user: &UserId) {
        if let Err(error) = self.0.rooms.note_unplaced_devices(user).await {
            tracing::warn!(%user, %error, "it is not remembered that the user's devices changed");
        }
    }

    async fn take_signing_keys(
        &self,
        origin: &ServerName,
        update: SigningKeyUpdateContent,
    ) -> Result<(), AccountError> {
        let accounts = &self.0.accounts;
        // An answer under way may hold the keys before these.
        self.0.devices.note_news(&update.user_id);
        if accounts.remote_list(&update.user_id).await?.is_none() {
            return self.take_news_of_stranger(origin, &update.user_id).await;
        }
        self.note_unplaced(&update.user_id).await;
        if self.is_unmet(&update.user_id).await? {
            return Ok(());
        }
        let keys = RemoteUpdate {
            master: update.master_key,
            self_signing: update.self_signing_key,
            ..RemoteUpdate::default()
        };
        accounts.update_remote(&update.user_id, keys).await
    }
}
