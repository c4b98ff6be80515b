//! The push gateway: one queue per pusher, tried again with growing pauses, never in the way of anybody else.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
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
use serde_json::{Map, Value, json};

use crate::{Delivery, Error};

/// Notifications that wait for one pusher; the oldest go first when there are more.
const WAITING: usize = 50;
/// Attempts before a notification is given up.
const ATTEMPTS: u32 = 8;
/// The first pause after a failure; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(2);
/// What a gateway's answer may cost.
const LIMITS: Limits = Limits { max_bytes: 64 << 10, deadline: Duration::from_secs(30) };

/// What is sent, but for the devices.
#[derive(Clone, Debug)]
pub(super) struct Notification {
    fields: Map<String, Value>,
    tweaks: Map<String, Value>,
}

impl Notification {
    /// A number to be shown and nothing else.
    pub(super) fn badge(unread: usize) -> Self {
        let mut fields = Map::new();
        fields.insert("counts".to_owned(), json!({ "unread": unread }));
        Self { fields, tweaks: Map::new() }
    }

    /// An event that draws attention.
    pub(super) fn event(pdu: &Pdu, user: &UserId, attention: &Attention, unread: usize) -> Self {
        let Self { mut fields, mut tweaks } = Self::badge(unread);
        let encrypted = *pdu.kind() == TimelineEventType::RoomEncrypted;
        let urgent = attention.highlight || attention.sound.is_some() || encrypted;
        fields.insert("event_id".to_owned(), json!(pdu.event_id()));
        fields.insert("room_id".to_owned(), json!(pdu.room_id()));
        fields.insert("type".to_owned(), json!(pdu.kind()));
        fields.insert("sender".to_owned(), json!(pdu.sender()));
        fields.insert("prio".to_owned(), json!(if urgent { "high" } else { "low" }));
        fields.insert("content".to_owned(), json!(pdu.content()));
        if pdu.state_key() == Some(user.as_str()) && *pdu.kind() == TimelineEventType::RoomMember {
            fields.insert("user_is_target".to_owned(), json!(true));
        }
        if attention.highlight {
            tweaks.insert("highlight".to_owned(), json!(true));
        }
        if let Some(sound) = &attention.sound {
            tweaks.insert("sound".to_owned(), json!(sound));
        }
        Self { fields, tweaks }
    }

    /// Adds the names of sender and room.
    pub(super) async fn name(&mut self, view: &View<'_>, pdu: &Pdu) -> Result<(), Error> {
        let wanted = [
            (StateEventType::RoomMember, pdu.sender().as_str(), "displayname", "sender_display_name"),
            (StateEventType::RoomName, "", "name", "room_name"),
            (StateEventType::RoomCanonicalAlias, "", "alias", "room_alias"),
        ];
        for (kind, key, from, to) in wanted {
            let event = view.current(kind, key).await?;
            let content = event.and_then(|event| event.pdu.content_as::<Map<String, Value>>());
            let name = content.and_then(|mut content| content.remove(from)).filter(Value::is_string);
            self.fields.extend(name.map(|name| (to.to_owned(), name)));
        }
        Ok(())
    }

    /// The body for one pusher, as it wants it.
    fn body(&self, pusher: &PusherInfo) -> Value {
        let mut data = pusher.pusher.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        data.remove("url");
        let id_only = data.get("format").and_then(Value::as_str) == Some("event_id_only");
        let mut fields = self.fields.clone();
        if id_only {
            fields.retain(|field, _| matches!(field.as_str(), "event_id" | "room_id" | "counts" | "prio"));
        }
        let mut device = json!({
            "app_id": pusher.app_id, "pushkey": pusher.pushkey, "pushkey_ts": pusher.created / 1_000, "data": data,
        });
        if !self.tweaks.is_empty() && !id_only {
            device["tweaks"] = Value::Object(self.tweaks.clone());
        }
        fields.insert("devices".to_owned(), json!([device]));
        json!({ "notification": fields })
    }
}

type Key = (OwnedUserId, String, String);

/// Queues by pusher; a queue exists while its worker runs.
#[derive(Clone)]
pub(super) struct Gateway {
    world: World,
    accounts: Accounts,
    queues: Arc<Mutex<HashMap<Key, VecDeque<Value>>>>,
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
    pub(super) fn send(&self, user: &UserId, pushers: &[PusherInfo], notification: &Notification) {
        for pusher in pushers {
            let Some(url) = pusher.pusher.pointer("/data/url").and_then(Value::as_str) else { continue };
            let key = (user.to_owned(), pusher.app_id.clone(), pusher.pushkey.clone());
            let mut queues = self.queues.lock();
            let runs = queues.contains_key(&key);
            let queue = queues.entry(key.clone()).or_default();
            queue.push_back(notification.body(pusher));
            if queue.len() > WAITING {
                queue.pop_front();
            }
            if !runs {
                let (gateway, url) = (self.clone(), url.to_owned());
                drop(self.world.spawn("push-gateway", async move { gateway.work(key, &url).await }));
            }
        }
    }

    async fn work(&self, key: Key, url: &str) {
        while let Some(body) = self.next(&key) {
            match self.insist(url, &body).await {
                Some(Sent::Rejected) => {
                    let ids = PusherIds::new(key.2.clone(), key.1.clone());
                    if let Err(error) = self.accounts.delete_pusher(&key.0, &ids).await {
                        tracing::warn!(%error, "a rejected pusher was not removed");
                    }
                    self.queues.lock().remove(&key);
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// The next notification; without one the queue ends, under the lock that starts workers.
    fn next(&self, key: &Key) -> Option<Value> {
        let mut queues = self.queues.lock();
        let next = queues.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            queues.remove(key);
        }
        next
    }

    /// Tries until it is sent or given up; `None` when the server stops.
    async fn insist(&self, url: &str, body: &Value) -> Option<Sent> {
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS {
            match self.attempt(url, body).await {
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

    async fn attempt(&self, url: &str, body: &Value) -> Sent {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            rejected: Vec<String>,
        }
        let request = http::Request::post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.to_string()));
        let Ok(http) = request else { return Sent::Done };
        let request = Request { destination: Destination::Url { redirects: 0 }, http, limits: LIMITS };
        match self.world.send(request).await {
            Ok(answer) if answer.status().is_success() => {
                let rejected = serde_json::from_slice::<Answer>(answer.body()).is_ok_and(|answer| {
                    let key = body.pointer("/notification/devices/0/pushkey").and_then(Value::as_str);
                    answer.rejected.iter().any(|rejected| Some(rejected.as_str()) == key)
                });
                if rejected { Sent::Rejected } else { Sent::Done }
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
