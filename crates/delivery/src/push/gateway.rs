//! The push gateway: one queue per pusher, tried again with growing pauses, never in the way of anybody else.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use chappe_accounts::{Accounts, PusherInfo};
use chappe_rooms::View;
use chappe_rules::{Pdu, push::Attention};
use chappe_world::{Destination, Limits, Request, World};
use parking_lot::Mutex;
use ruma::{
    OwnedUserId, UserId,
    api::client::push::PusherIds,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::to_raw_value};

use crate::{Delivery, Error};

/// Notifications that wait for one pusher; the oldest go first when there are more.
const WAITING: usize = 50;
/// Bytes that wait for the pushers of one user, and for those of all: beyond, each pusher keeps less of what is old.
const OF_USER: usize = 2 << 20;
const OF_ALL: usize = 256 << 20;
/// What a notification takes beside its texts.
const OVERHEAD: usize = 500;
/// Attempts before a notification is given up.
const ATTEMPTS: u32 = 8;
/// The first pause after a failure; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(2);
/// What a gateway's answer may cost.
const LIMITS: Limits = Limits { max_bytes: 64 << 10, deadline: Duration::from_secs(30) };

/// How many hold something whose bytes count once; changed under the lock of the queues.
#[derive(Debug, Default)]
struct Holders(AtomicUsize);

impl Holders {
    /// One more; whether it is the first.
    fn come(&self) -> bool {
        self.0.fetch_add(1, Relaxed) == 0
    }

    /// One less; whether it was the last.
    fn go(&self) -> bool {
        self.0.fetch_sub(1, Relaxed) == 1
    }
}

/// An event as gateways are told of it, the same for everybody.
#[derive(Debug)]
pub(super) struct Told {
    pdu: Pdu,
    /// Notifications that wait with it.
    holders: Holders,
    /// Names of sender and room, by their field.
    names: Vec<(&'static str, String)>,
}

impl Told {
    /// Of an event in a room that this server is in, with names, or elsewhere.
    pub(super) async fn new(pdu: &Pdu, view: Option<&View<'_>>) -> Result<Self, Error> {
        let mut told = Self { pdu: pdu.clone(), holders: Holders::default(), names: Vec::new() };
        let wanted = [
            (StateEventType::RoomMember, pdu.sender().as_str(), "displayname", "sender_display_name"),
            (StateEventType::RoomName, "", "name", "room_name"),
            (StateEventType::RoomCanonicalAlias, "", "alias", "room_alias"),
        ];
        let Some(view) = view else { return Ok(told) };
        for (kind, key, from, to) in wanted {
            let event = view.current(kind, key).await?;
            let content = event.and_then(|event| event.pdu.content_as::<Map<String, Value>>());
            if let Some(Value::String(name)) = content.and_then(|mut content| content.remove(from)) {
                told.names.push((to, name));
            }
        }
        Ok(told)
    }

    fn bytes(&self) -> usize {
        self.pdu.content().get().len() + self.names.iter().map(|(_, name)| name.len()).sum::<usize>()
    }
}

/// What is sent, but for the devices.
#[derive(Debug)]
pub(super) struct Notification {
    unread: usize,
    /// Pushers of the user for which it waits.
    holders: Holders,
    event: Option<Arc<Told>>,
    urgent: bool,
    is_target: bool,
    tweaks: Map<String, Value>,
}

impl Notification {
    /// A number to be shown and nothing else.
    pub(super) fn badge(unread: usize) -> Self {
        Self {
            unread,
            holders: Holders::default(),
            event: None,
            urgent: false,
            is_target: false,
            tweaks: Map::new(),
        }
    }

    /// An event that draws attention.
    pub(super) fn event(told: &Arc<Told>, user: &UserId, attention: &Attention, unread: usize) -> Self {
        let pdu = &told.pdu;
        let encrypted = *pdu.kind() == TimelineEventType::RoomEncrypted;
        let mut tweaks = Map::new();
        if attention.highlight {
            tweaks.insert("highlight".to_owned(), json!(true));
        }
        if let Some(sound) = &attention.sound {
            tweaks.insert("sound".to_owned(), json!(sound));
        }
        Self {
            unread,
            holders: Holders::default(),
            event: Some(told.clone()),
            urgent: attention.highlight || attention.sound.is_some() || encrypted,
            is_target: pdu.state_key() == Some(user.as_str()) && *pdu.kind() == TimelineEventType::RoomMember,
            tweaks,
        }
    }

    /// How much memory it takes, about, of its user's and of all, for one pusher that comes or goes: the event is the same
    /// for all pushers of a user and for all users.
    fn bytes(&self, shares: impl Fn(&Holders) -> bool) -> (usize, usize) {
        let own = OVERHEAD + self.tweaks.get("sound").and_then(Value::as_str).map_or(0, str::len);
        let Some(told) = self.event.as_ref().filter(|_| shares(&self.holders)) else { return (own, own) };
        let with_event = own + told.bytes();
        (with_event, if shares(&told.holders) { with_event } else { own })
    }

    /// The body for one pusher, as it wants it.
    fn body(&self, pusher: &PusherInfo) -> Result<Bytes, serde_json::Error> {
        let mut data = pusher.pusher.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        data.remove("url");
        let id_only = data.get("format").and_then(Value::as_str) == Some("event_id_only");
        let mut device = json!({
            "app_id": pusher.app_id, "pushkey": pusher.pushkey, "pushkey_ts": pusher.created / 1_000, "data": data,
        });
        if !self.tweaks.is_empty() && !id_only {
            device["tweaks"] = Value::Object(self.tweaks.clone());
        }
        let mut fields = BTreeMap::from([
            ("counts", to_raw_value(&json!({ "unread": self.unread }))?),
            ("devices", to_raw_value(&[device])?),
        ]);
        if let Some(Told { pdu, names, .. }) = self.event.as_deref() {
            fields.insert("event_id", to_raw_value(pdu.event_id())?);
            fields.insert("room_id", to_raw_value(&pdu.room_id())?);
            fields.insert("prio", to_raw_value(if self.urgent { "high" } else { "low" })?);
            if !id_only {
                fields.insert("type", to_raw_value(pdu.kind())?);
                fields.insert("sender", to_raw_value(pdu.sender())?);
                fields.insert("content", pdu.content().to_owned());
                for (field, name) in names {
                    fields.insert(field, to_raw_value(name)?);
                }
            }
            if self.is_target && !id_only {
                fields.insert("user_is_target", to_raw_value(&true)?);
            }
        }
        serde_json::to_vec(&BTreeMap::from([("notification", fields)])).map(Bytes::from)
    }
}

type Key = (OwnedUserId, String, String);

/// A notification that waits, for the pusher as it was then.
struct Waiting {
    pusher: Arc<PusherInfo>,
    notification: Arc<Notification>,
}

/// Queues by pusher; a queue exists while its worker runs.
#[derive(Default)]
struct Queues {
    waiting: HashMap<Key, VecDeque<Waiting>>,
    /// Bytes that wait or are on their way for each user, and for all.
    bytes: HashMap<OwnedUserId, usize>,
    all: usize,
}

impl Queues {
    /// Adds a notification and drops the oldest of the same pusher while there is too much: what is new is never lost to
    /// what is old. Whether a worker has to be started.
    fn push(&mut self, key: &Key, waiting: Waiting) -> bool {
        let runs = self.waiting.contains_key(key);
        self.count(&key.0, &waiting);
        self.waiting.entry(key.clone()).or_default().push_back(waiting);
        while let Some(queue) = self.waiting.get_mut(key).filter(|queue| queue.len() > 1) {
            let of_user = self.bytes.get(&key.0).copied().unwrap_or(0);
            if queue.len() <= WAITING && of_user <= OF_USER && self.all <= OF_ALL {
                break;
            }
            if let Some(gone) = queue.pop_front() {
                self.discount(&key.0, &gone);
            }
        }
        !runs
    }

    /// The next notification, counted until [`Queues::discount`]; without one the queue ends, under the lock that starts
    /// workers.
    fn next(&mut self, key: &Key) -> Option<Waiting> {
        let next = self.waiting.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(key);
        }
        next
    }

    /// Ends a queue.
    fn end(&mut self, key: &Key) {
        for waiting in self.waiting.remove(key).into_iter().flatten() {
            self.discount(&key.0, &waiting);
        }
    }

    fn count(&mut self, user: &OwnedUserId, come: &Waiting) {
        let (own, of_all) = come.notification.bytes(Holders::come);
        *self.bytes.entry(user.clone()).or_default() += own;
        self.all += of_all;
    }

    fn discount(&mut self, user: &OwnedUserId, gone: &Waiting) {
        let (own, of_all) = gone.notification.bytes(Holders::go);
        self.all = self.all.saturating_sub(of_all);
        if let Some(of_user) = self.bytes.get_mut(user) {
            *of_user = of_user.saturating_sub(own);
            if *of_user == 0 {
                self.bytes.remove(user);
            }
        }
    }
}

/// What pushes: a worker for each pusher for which something waits.
#[derive(Clone)]
pub(super) struct Gateway {
    world: World,
    accounts: Accounts,
    queues: Arc<Mutex<Queues>>,
}

/// What became of an attempt.
enum Sent {
    Done,
    /// The gateway does not know the device any more.
    Rejected,
    Later,
}

impl Gateway {
    pub(super) fn new(delivery: &Delivery) -> Self {
        let (world, accounts) = (delivery.0.world.clone(), delivery.0.accounts.clone());
        Self { world, accounts, queues: Arc::default() }
    }

    /// Queues a notification for each of a user's pushers.
    pub(super) fn send(&self, user: &UserId, pushers: &[Arc<PusherInfo>], notification: Notification) {
        let notification = Arc::new(notification);
        for pusher in pushers {
            let key = (user.to_owned(), pusher.app_id.clone(), pusher.pushkey.clone());
            let waiting = Waiting { pusher: pusher.clone(), notification: notification.clone() };
            if self.queues.lock().push(&key, waiting) {
                let gateway = self.clone();
                drop(self.world.spawn("push-gateway", async move { gateway.work(key).await }));
            }
        }
    }

    async fn work(&self, key: Key) {
        while let Some(waiting) = self.next(&key) {
            let sent = self.insist(&waiting).await;
            self.queues.lock().discount(&key.0, &waiting);
            match sent {
                Some(Sent::Rejected) => {
                    let ids = PusherIds::new(key.2.clone(), key.1.clone());
                    if let Err(error) = self.accounts.delete_pusher(&key.0, &ids).await {
                        tracing::warn!(%error, "a rejected pusher was not removed");
                    }
                    return self.queues.lock().end(&key);
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    fn next(&self, key: &Key) -> Option<Waiting> {
        self.queues.lock().next(key)
    }

    /// Tries until it is sent or given up; `None` when the server stops.
    async fn insist(&self, waiting: &Waiting) -> Option<Sent> {
        let mut pause = PAUSE;
        let Some(url) = waiting.pusher.pusher.pointer("/data/url").and_then(Value::as_str) else {
            return Some(Sent::Done);
        };
        for _ in 0..ATTEMPTS {
            match self.attempt(url, waiting).await {
                Sent::Later => {}
                settled => return Some(settled),
            }
            tokio::select! {
                () = self.world.stopping() => return None,
                () = self.world.sleep(pause) => pause *= 2,
            }
        }
        tracing::info!(url, attempts = ATTEMPTS, "a notification is given up");
        Some(Sent::Done)
    }

    async fn attempt(&self, url: &str, waiting: &Waiting) -> Sent {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            rejected: Vec<String>,
        }
        let Ok(body) = waiting.notification.body(&waiting.pusher) else { return Sent::Done };
        let request =
            http::Request::post(url).header(http::header::CONTENT_TYPE, "application/json").body(body);
        let Ok(http) = request else { return Sent::Done };
        let request = Request { destination: Destination::Url { redirects: 0 }, http, limits: LIMITS };
        match self.world.send(request).await {
            Ok(answer) if answer.status().is_success() => {
                let answer = serde_json::from_slice::<Answer>(answer.body());
                let rejects = |answer: &Answer| answer.rejected.contains(&waiting.pusher.pushkey);
                if answer.is_ok_and(|answer| rejects(&answer)) { Sent::Rejected } else { Sent::Done }
            }
            Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => Sent::Done,
            Err(error @ (chappe_world::Error::Refused(_) | chappe_world::Error::Invalid(_))) => {
                tracing::info!(url, %error, "a push gateway is never reached");
                Sent::Done
            }
            _ => Sent::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_accounts::PusherInfo;
    use chappe_rules::{Pdu, push::Attention};
    use ruma::{owned_event_id, owned_user_id, room_version_rules::RoomVersionRules};
    use serde_json::{Value, json};

    use super::{Holders, Key, Notification, OF_USER, Queues, Told, WAITING, Waiting};

    fn waiting(unread: usize, bytes: usize) -> Waiting {
        let mut notification = Notification::badge(unread);
        notification.tweaks.insert("sound".to_owned(), json!("x".repeat(bytes)));
        for_pusher(&Arc::new(notification))
    }

    fn for_pusher(notification: &Arc<Notification>) -> Waiting {
        let (app_id, pushkey) = (String::new(), String::new());
        let pusher = PusherInfo { pusher: Value::Null, app_id, pushkey, device: None, created: 0 };
        Waiting { pusher: Arc::new(pusher), notification: notification.clone() }
    }

    #[test]
    fn an_event_counts_once_for_all_pushers_of_a_user_and_for_all_users() {
        let event = json!({
            "room_id": "!r:x", "sender": "@s:x", "type": "m.room.message", "content": { "body": "x".repeat(60_000) },
            "prev_events": [], "auth_events": [], "depth": 1, "origin_server_ts": 1,
        });
        let pdu = Pdu::restore(&RoomVersionRules::V11, owned_event_id!("$e"), &event.to_string()).unwrap();
        let told = Arc::new(Told { pdu, holders: Holders::default(), names: Vec::new() });
        let mut queues = Queues::default();
        let mut keys = Vec::<Key>::new();
        for user in 0..50 {
            let user = ruma::OwnedUserId::try_from(format!("@u{user}:x")).unwrap();
            let notification = Arc::new(Notification::event(&told, &user, &Attention::default(), 1));
            for pusher in 0..50 {
                let key = (user.clone(), String::new(), pusher.to_string());
                queues.push(&key, for_pusher(&notification));
                keys.push(key);
            }
            assert!(queues.bytes[&user] < 100_000, "{}", queues.bytes[&user]);
        }
        assert!(queues.all < 50 * 50 * 1_000 + 100_000, "{} bytes", queues.all);
        for key in &keys[1..] {
            queues.end(key);
        }
        assert!(queues.all > 60_000, "one pusher still waits with it");
        queues.end(&keys[0]);
        assert!(queues.all == 0 && queues.bytes.is_empty());
    }

    #[test]
    fn what_waits_for_pushers_has_a_size_and_the_newest_stays() {
        let mut queues = Queues::default();
        let key = |user: &str, pushkey: &str| -> Key {
            (user.try_into().unwrap(), String::new(), pushkey.to_owned())
        };
        let (one, two) = (key("@a:x", "1"), key("@a:x", "2"));
        assert!(queues.push(&one, waiting(0, 10)));
        for n in 1..=2 * WAITING {
            assert!(!queues.push(&one, waiting(n, 10)), "its worker runs");
        }
        assert_eq!(queues.waiting[&one].len(), WAITING);
        for n in 0..100 {
            queues.push(&two, waiting(n, OF_USER / 10));
            queues.push(&one, waiting(n, OF_USER / 10));
            assert!(queues.all <= OF_USER + OF_USER / 5, "{} bytes", queues.all);
        }
        let other = key("@b:x", "1");
        queues.push(&other, waiting(7, 10));
        let next = queues.next(&other).unwrap();
        assert_eq!(next.notification.unread, 7);
        assert!(queues.bytes.contains_key(&other.0), "what is on its way counts");
        queues.discount(&other.0, &next);
        let mut last = None;
        while let Some(next) = queues.next(&one) {
            queues.discount(&one.0, &next);
            last = Some(next.notification.unread);
        }
        assert_eq!(last, Some(99));
        queues.end(&two);
        assert!(queues.next(&other).is_none());
        assert!(queues.all == 0 && queues.bytes.is_empty() && queues.waiting.is_empty());
        assert!(
            queues.push(&(owned_user_id!("@a:x"), String::new(), String::new()), waiting(0, 2 * OF_USER))
        );
    }
}
