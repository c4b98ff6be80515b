//! Received → Checked: size, format, room, access control list, signatures and hash.

use chappe_rules::{
    Pdu,
    acl::Acl,
    check::{self, KeyRing, ServerKey, keys_needed},
    json,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId, ServerName, UInt,
    events::StateEventType, room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::Received;
use crate::{Error, Inner, KeysWanted, Result, desk::Desk};

/// An event whose form and signatures are right, redacted if its hash was wrong.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    origin: OwnedServerName,
    room: OwnedRoomId,
    pdu: Pdu,
    intact: bool,
}

impl Checked {
    pub(crate) fn origin(&self) -> &ServerName {
        &self.origin
    }

    pub(crate) fn room(&self) -> &RoomId {
        &self.room
    }

    pub(crate) fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// As [`Proven::is_intact`].
    pub(super) fn is_intact(&self) -> bool {
        self.intact
    }

    /// An event that one of the handshakes has checked by the same function, [`Inner::check_all`].
    pub(crate) fn from_handshake(origin: &ServerName, proven: Proven) -> Self {
        let intact = proven.is_intact();
        let pdu = proven.0.into_pdu();
        Self { origin: origin.to_owned(), room: pdu.room_id().to_owned(), pdu, intact }
    }
}

/// An event with right signatures, from whomever, redacted if its hash was wrong. Only [`Inner::try_all`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Proven(check::Checked);

impl Proven {
    pub(crate) fn pdu(&self) -> &Pdu {
        self.0.pdu()
    }

    /// Whether it says what its sender said: its content hash is right.
    pub(crate) fn is_intact(&self) -> bool {
        self.0.is_intact()
    }

    /// Fails if `origin` changed what another server wrote: to know an event that has been redacted is reason to give it to
    /// who asks, not to push it.
    pub(super) fn if_pushed_by(self, origin: &ServerName) -> Result<Self> {
        if self.is_intact() || self.pdu().sender().server_name() == origin {
            return Ok(self);
        }
        Err(Error::InvalidParam("the event was changed on its way".to_owned()))
    }
}

/// Where events come from whose keys are looked for.
#[derive(Clone, Copy)]
enum Told {
    Join,
    Elsewhere,
}

impl Received {
    /// Drops what is no event, not of this room, from a server that the room does not let in, or not signed.
    pub(super) async fn check(self, inner: &Inner) -> Result<Checked> {
        let desk = inner.open_here(&self.room).await?;
        allowed_by_acl(&desk, &self.origin).await?;
        let rules = desk.rules;
        drop(desk);
        let pdu = parse(rules, &self.room, &self.raw)?;
        let proven = inner.check_news(rules, pdu).await?.if_pushed_by(&self.origin)?;
        Ok(Checked::from_handshake(&self.origin, proven))
    }
}

/// Whether the room's access control list lets a server in.
pub(crate) async fn allowed_by_acl(desk: &Desk<'_>, server: &ServerName) -> Result<()> {
    let Some(acl) = desk.current(StateEventType::RoomServerAcl, "").await? else { return Ok(()) };
    if Acl::new(acl.content()).allows(server) {
        return Ok(());
    }
    Err(Error::Forbidden("this room does not let your server in".to_owned()))
}

/// Reads an event that must be of `room`; [`Error::BadJson`] if it is not even canonical JSON.
pub(crate) fn parse(rules: &RoomVersionRules, room: &RoomId, raw: &RawValue) -> Result<Pdu> {
    let bytes = raw.get().as_bytes();
    let pdu = Pdu::parse(rules, bytes).map_err(|error| match json::object(bytes) {
        Ok(_) => Error::InvalidParam(error.to_string()),
        Err(_) => Error::BadJson(error.to_string()),
    })?;
    if pdu.room_id() != room {
        return Err(Error::InvalidParam("the event is of another room".to_owned()));
    }
    Ok(pdu)
}

impl Inner {
    /// A room that this server is in. While it comes in with a join it is [`Error::Unreachable`]: what others send it by then is
    /// kept, and looked at when there is something to look at it with.
    async fn open_here(&self, room: &RoomId) -> Result<Desk<'_>> {
        // Asked first: with its last commit a join is over.
        let is_coming_in = self.is_coming_in(room).await?;
        let here = match Desk::open(self, room).await {
            Ok(desk) => desk.is_here().await?.then_some(desk),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        here.ok_or(if is_coming_in { Error::Unreachable } else { Error::NotFound("room") })
    }

    /// Checks signatures and hash of one event.
    pub(crate) async fn check_one(&self, rules: &'static RoomVersionRules, pdu: Pdu) -> Result<Proven> {
        let mut checked = self.check_all(rules, vec![pdu]).await;
        checked.pop().unwrap_or_else(|| Err(Error::BadJson("no event".to_owned())))
    }

    /// As [`Inner::check_one`], of an event that is sent as news: a wrong signature is its sender's fault, that keys are not at
    /// hand is nobody's.
    async fn check_news(&self, rules: &'static RoomVersionRules, pdu: Pdu) -> Result<Proven> {
        match self.try_all(rules, vec![pdu]).await.pop() {
            Some(Ok(proven)) => Ok(proven),
            Some(Err(error @ chappe_rules::Error::UnknownKey(_))) => {
                Err(Error::HostilePeer(error.to_string()))
            }
            Some(Err(error)) => {
                tracing::info!(%error, "a received event is wrongly signed");
                Err(Error::InvalidParam("the event is not signed as it must be".to_owned()))
            }
            None => Err(Error::BadJson("no event".to_owned())),
        }
    }

    /// Checks signatures and hashes of many events, with one request for all keys.
    pub(crate) async fn check_all(
        &self,
        rules: &'static RoomVersionRules,
        pdus: Vec<Pdu>,
    ) -> Vec<Result<Proven>> {
        let checked = self.try_all(rules, pdus).await.into_iter();
        checked.map(|checked| checked.map_err(|error| Error::HostilePeer(error.to_string()))).collect()
    }

    /// As [`Inner::check_all`], with what the rules say against them.
    pub(crate) async fn try_all(
        &self,
        rules: &'static RoomVersionRules,
        pdus: Vec<Pdu>,
    ) -> Vec<Result<Proven, chappe_rules::Error>> {
        let ring = self.keys_for(rules, &pdus, Told::Elsewhere).await;
        self.verify(rules, pdus, ring).await
    }

    /// The rightly signed ones among the events that a join has brought.
    pub(crate) async fn check_joined(&self, rules: &'static RoomVersionRules, pdus: Vec<Pdu>) -> Vec<Proven> {
        let ring = self.keys_for(rules, &pdus, Told::Join).await;
        self.verify(rules, pdus, ring).await.into_iter().filter_map(Result::ok).collect()
    }

    async fn verify(
        &self,
        rules: &'static RoomVersionRules,
        pdus: Vec<Pdu>,
        ring: KeyRing,
    ) -> Vec<Result<Proven, chappe_rules::Error>> {
        let weak = self.weak_keys.clone();
        let verify = move || {
            let checked = pdus.iter().map(|pdu| check::check(rules, pdu, &ring, &weak));
            checked.map(|checked| checked.map(Proven)).collect()
        };
        self.world.spawn_blocking(verify).await.unwrap_or_default()
    }

    async fn keys_for(&self, rules: &RoomVersionRules, pdus: &[Pdu], told: Told) -> KeyRing {
        let mut wanted = wanted(rules, pdus);
        // Those of before are among what is published of this server.
        let ours = wanted.get_mut(&self.server).map(|keys| keys.ids.remove(self.key.id())).is_some();
        wanted.retain(|_, keys| !keys.ids.is_empty());
        let mut ring = match told {
            _ if wanted.is_empty() => KeyRing::new(),
            Told::Join => self.peers.keys_for_join(&wanted).await,
            Told::Elsewhere => self.peers.keys(&wanted).await,
        };
        if ours {
            let until = MilliSecondsSinceUnixEpoch(UInt::MAX);
            let own = ServerKey { public: self.key.public_key(), until };
            ring.entry(self.server.clone()).or_default().insert(self.key.id().to_owned(), own);
        }
        ring
    }
}

/// The keys that events have to be checked with.
fn wanted(rules: &RoomVersionRules, pdus: &[Pdu]) -> KeysWanted {
    let mut wanted = KeysWanted::new();
    for pdu in pdus {
        let at = u64::from(pdu.origin_server_ts().get());
        for (server, ids) in keys_needed(rules, pdu).unwrap_or_default() {
            let keys = wanted.entry(server).or_default();
            keys.ids.extend(ids);
            keys.events += 1;
            keys.at = keys.at.max(at);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use chappe_rules::Pdu;
    use ruma::{room_version_rules::RoomVersionRules, server_name};
    use serde_json::json;

    use super::wanted;

    fn said(user: &str, server: &str, key: &str, at: u64) -> Pdu {
        let event = json!({
            "type": "m.room.message", "room_id": "!r:a.example", "sender": format!("@{user}:{server}"),
            "content": {}, "origin_server_ts": at, "depth": 1, "prev_events": [], "auth_events": [],
            "hashes": { "sha256": "AAAA" }, "signatures": { server: { key: "AAAA" } },
        });
        Pdu::parse(&RoomVersionRules::V11, event.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn it_is_counted_how_many_events_a_server_has_to_have_signed_and_until_when() {
        let [a, b] = ["a.example", "b.example"];
        let pdus =
            [said("x", a, "ed25519:1", 7), said("y", a, "ed25519:2", 5), said("z", b, "ed25519:1", 17)];
        let wanted = wanted(&RoomVersionRules::V11, &pdus);
        let keys = &wanted[server_name!("a.example")];
        assert_eq!((keys.ids.len(), keys.events, keys.at), (2, 2, 7));
        let keys = &wanted[server_name!("b.example")];
        assert_eq!((keys.ids.len(), keys.events, keys.at), (1, 1, 17));
    }
}
