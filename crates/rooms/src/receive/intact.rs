//! Whoever gives events of others can leave out what they say, as of a redacted event, and their signatures hold all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chappe_rules::{
    Pdu,
    auth::{allowed_by_state, state_needed},
    check,
};
use chappe_store::{EventNum, LogEntry, Removed, RoomNid, StateRef, Status, StoredPdu, Tx};
use futures_util::future::join_all;
use ruma::{EventId, OwnedServerName, RoomId, ServerName, room_version_rules::RoomVersionRules};

use super::{Before, Checked, Complete, HOPELESS, Proven, check::parse};
use crate::{
    Error, Inner, Result,
    desk::{Desk, Source, is_placed, parsed},
    turn::ATTEMPTS,
};

/// Events whose senders' servers are asked for them at once, at most.
const AT_ONCE: usize = 20;
/// For how long these are waited for.
const LONGEST: Duration = Duration::from_secs(10);
/// Events that a server does not give, after which it is asked for no more of its own.
const VAIN: usize = 3;
/// For how long all are asked.
const LONGEST_OF_ALL: Duration = Duration::from_mins(1);

impl Inner {
    /// Events that `server` gave, with those that it gave as if they were redacted as their own servers give them, where nobody
    /// else is known to have redacted them. What cannot be had stays as it came. Where there are more than can be asked for
    /// in time, the first of these and what comes after it are left out: they are missing as before.
    pub(super) async fn intact(
        &self,
        server: &ServerName,
        (room, rules): (&RoomId, &'static RoomVersionRules),
        mut events: Vec<Proven>,
    ) -> Vec<Proven> {
        let mut left = self.changed_by(server, room, &events).await.unwrap_or_default();
        let end = self.world.instant() + LONGEST_OF_ALL;
        let mut vain: BTreeMap<OwnedServerName, usize> = BTreeMap::new();
        while let Some(&first) = left.first() {
            if self.world.instant() >= end {
                tracing::info!(%server, %room, left = left.len(), "events came without what they say");
                events.truncate(first);
                break;
            }
            let later = left.split_off(left.len().min(AT_ONCE));
            let asked = left.iter().copied().map(|at| {
                let whole = self.as_its_server_gives(rules, room, &events[at]);
                async move { (at, whole.await) }
            });
            let found = join_all(asked).await;
            for (at, whole) in found {
                match whole {
                    Some(whole) => events[at] = whole,
                    None => *vain.entry(server_of(&events[at]).to_owned()).or_default() += 1,
                }
            }
            left = later;
            left.retain(|at| vain.get(server_of(&events[*at])).is_none_or(|vain| *vain < VAIN));
        }
        events
    }

    /// Which of the events are of servers beside this one and `server`, came without what they say, and are redacted by nobody
    /// of another server as far as is known.
    async fn changed_by(&self, server: &ServerName, room: &RoomId, events: &[Proven]) -> Result<Vec<usize>> {
        let is_anothers = |proven: &Proven| server_of(proven) != server && *server_of(proven) != self.server;
        let is_changed = |proven: &Proven| !proven.is_intact() && is_anothers(proven);
        let redactions = events.iter().filter(|proven| server_of(proven) != server);
        let redacted: BTreeSet<&EventId> = redactions.filter_map(|proven| proven.pdu().redacts()).collect();
        let desk = Desk::open(self, room).await?;
        let mut changed = Vec::new();
        for (at, proven) in events.iter().enumerate().filter(|(_, proven)| is_changed(proven)) {
            let event = proven.pdu().event_id();
            if self.blank.holds(&(room.to_owned(), event.to_owned()), self.world.instant()) {
                continue;
            }
            let waiting = desk.reader.noted_redactions(desk.nid, event).await?;
            let waiting = desk.pdus(&waiting).await?;
            let is_redacted = redacted.contains(event)
                || waiting.iter().any(|redaction| redaction.sender().server_name() != server)
                || match desk.reader.event_num(desk.nid, event).await? {
                    Some(num) => desk.is_redacted(num).await?,
                    None => false,
                };
            if !is_redacted {
                changed.push(at);
            }
        }
        Ok(changed)
    }

    /// None is not asked for again for a while, unless its server was not asked at all.
    async fn as_its_server_gives(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        given: &Proven,
    ) -> Option<Proven> {
        let (pdu, server) = (given.pdu(), given.pdu().sender().server_name());
        if self.peers.is_away(server).await {
            return None;
        }
        let asked = async {
            let raw = self.peers.event(server, pdu.event_id()).await.ok()?;
            let whole = self.check_one(rules, parse(rules, room, &raw).ok()?).await.ok()?;
            (whole.is_intact() && pdu.is_same(rules, whole.pdu())).then_some(whole)
        };
        let whole = self.world.timeout(LONGEST, asked).await.flatten();
        if whole.is_none() {
            self.blank.add((room.to_owned(), pdu.event_id().to_owned()), (self.world.instant(), HOPELESS));
        }
        whole
    }

    /// Puts in what an event says that is stored without: an intact one came. One that has its place was judged without that:
    /// it stays as it is if it may not say there what it says.
    pub(super) async fn fill_in(&self, checked: &Checked, num: EventNum) -> Result<()> {
        let desk = Desk::open(self, checked.room()).await?;
        let status = desk.reader.event_meta(desk.nid, num).await?.status;
        let alone = Complete::alone(checked.pdu().clone(), desk.rules, Source::Elsewhere, Before::Prevs);
        let mut whole = Complete { policy_server: desk.policy_server().await?, ..alone };
        drop(desk);
        let attempt = (checked.origin().to_owned(), checked.pdu().event_id().to_owned());
        let is_shown = status == Status::Accepted && whole.policy_server.is_some();
        if is_shown && self.hopeless.holds(&attempt, self.world.instant()) {
            return Ok(());
        }
        if is_shown {
            whole = self.with_opinion(whole).await;
        }
        let _turn = self.turn(checked.room()).await;
        for _ in 0..ATTEMPTS {
            let mut desk = Desk::open(self, checked.room()).await?;
            if desk.reader.event_meta(desk.nid, num).await?.status != status {
                // It has got its place meanwhile, and the policy server has not seen what it says.
                return Err(Error::Retry);
            }
            match desk.fill_in(&whole, num).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error @ (Error::Forbidden(_) | Error::HostilePeer(_) | Error::NotFound(_))) => {
                    tracing::info!(event = %whole.pdu.event_id(), %error, "what an event says is left out");
                    if is_shown {
                        self.hopeless.add(attempt, (self.world.instant(), HOPELESS));
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            let nid = desk.nid;
            match self.replace(desk.seal(), nid, vec![num]).await {
                Ok(()) => {
                    // What its states come to may be something else now.
                    self.resolved.retain(|(room, _), _| *room != nid);
                    self.resolutions.forget(nid);
                    return Ok(());
                }
                Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }

    /// Commits what replaces some events, and drops these from memory. As a task of its own: a caller that is given up in between
    /// would leave there what is on disk no more. [`Error::Retry`]: another writer was first.
    pub(crate) async fn replace(&self, tx: Tx, nid: RoomNid, events: Vec<EventNum>) -> Result<()> {
        let store = self.store.clone();
        let work = async move {
            let at = store.commit(tx).await?;
            store.forget(at, nid, &Removed { events, ids: Vec::new() });
            Ok::<_, Error>(())
        };
        self.world.spawn("replaced events", work).await.unwrap_or(Err(Error::Retry))
    }
}

impl Desk<'_> {
    /// Whether an event is stored without what it says, though it has not expired and nobody is known to have redacted it.
    pub(super) async fn lacks_text(&self, pdu: &Pdu, num: EventNum) -> Result<bool> {
        let found = match self.reader.events(self.nid, &[num]).await {
            // Purged.
            Err(chappe_store::Error::Gone) => return Ok(false),
            found => found?.pop(),
        };
        let Some((meta, stored)) = found else { return Ok(false) };
        if *stored.json == *pdu.json() || meta.expired || meta.redacted_by.some().is_some() {
            return Ok(false);
        }
        Ok(!check::is_intact(&parsed(self.rules, &stored)?))
    }

    /// Puts the whole event in the place of one that lacks its text, with all that follows from it; false if that does not lack
    /// it. [`Error::Forbidden`] if the event may not say that where it stands.
    async fn fill_in(&mut self, whole: &Complete, num: EventNum) -> Result<bool> {
        let pdu = &whole.pdu;
        if !self.lacks_text(pdu, num).await? {
            return Ok(false);
        }
        let mut meta = self.reader.event_meta(self.nid, num).await?;
        if is_placed(&meta) {
            self.may_say(whole, meta.before).await?;
        } else if self.may_stand(pdu).await? {
            if meta.status == Status::Rejected {
                // It was refused for want of what it says.
                meta.status = Status::Outlier;
                self.tx.update_event(self.nid, num, &meta);
            }
        } else if meta.status == Status::Outlier {
            return Err(Error::Forbidden("the events that it names do not allow it".to_owned()));
        }
        let stored = StoredPdu::new(pdu.event_id().to_owned(), pdu.json());
        self.tx.complete_event(self.nid, num, &stored);
        self.note_media(pdu, num, &meta);
        if meta.status == Status::Accepted {
            self.index(pdu, num, &meta).await?;
        }
        // What was told as state has no place, and may be part of the current one.
        self.retell(pdu);
        self.recall_retention(pdu, num).await?;
        let mut events: Vec<u32> = self.redacted.iter().map(|num| num.0).chain([num.0]).collect();
        events.sort_unstable();
        self.tx.log(LogEntry::Purged { room: self.nid.0, events });
        Ok(true)
    }

    /// Whether an event that has a place, with this state before it, may say there what it says. [`Error::Forbidden`] if not.
    async fn may_say(&self, whole: &Complete, before: StateRef) -> Result<()> {
        let (rules, pdu) = (self.rules, &whole.pdu);
        whole.allowed_by_auth_events(self).await?.map_err(Error::Forbidden)?;
        let forbidden = |error: chappe_rules::Error| Error::Forbidden(error.to_string());
        let keys = state_needed(rules, pdu).map_err(forbidden)?;
        let held = self.held_at(before, &keys).await?;
        allowed_by_state(rules, pdu, |kind, key| held.get(kind, key)).map_err(forbidden)?;
        if let Some(reason) = &whole.unwanted {
            return Err(Error::Forbidden(reason.clone()));
        }
        // Whoever makes it says what it follows.
        for at in BTreeSet::from([before, self.state.current()]) {
            self.ask_access_of(pdu, at, whole.door).await?;
        }
        Ok(())
    }
}

/// The server of the event's sender.
fn server_of(proven: &Proven) -> &ServerName {
    proven.pdu().sender().server_name()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use chappe_kv::{Batch, Change, CommitError, Db, Engine, Memory, Position, Snapshot, Stamped};
    use chappe_rules::{Pdu, redact, retention::Policy};
    use chappe_store::{EventNum, Removed, RoomNid, StoredPdu, TableInfo, registry};
    use ruma::{OwnedEventId, OwnedRoomId, RoomId, events::TimelineEventType, server_name};
    use serde_json::{Map, json};
    use tokio::{
        sync::watch,
        time::{advance, sleep},
    };

    use crate::{
        Config, Draft, Rooms,
        desk::Desk,
        receive::Checked,
        tests::net::{ALICE, BOB, Net, actor, room},
    };

    const HOUR: Duration = Duration::from_hours(1);

    /// An engine that takes an hour to say that an event was replaced.
    #[derive(Default)]
    struct Slow(Memory);

    #[async_trait]
    impl Engine for Slow {
        fn snapshot(&self) -> Box<dyn Snapshot + '_> {
            self.0.snapshot()
        }

        async fn commit(&self, batch: Batch) -> Result<Position, CommitError> {
            let is_slow = puts(&batch, registry::EVENT_PDUS) && !puts(&batch, registry::EVENT_IDS);
            let committed = self.0.commit(batch).await;
            if is_slow {
                sleep(HOUR).await;
            }
            committed
        }

        fn visible(&self) -> watch::Receiver<Position> {
            self.0.visible()
        }
    }

    /// Whether something is put into a table.
    fn puts(batch: &Batch, table: TableInfo) -> bool {
        let is_of = |key: &Stamped| key.clone().fill(Position(0)).first() == Some(&table.number);
        batch.changes.iter().any(|change| matches!(change, Change::Put(key, _) if is_of(key)))
    }

    /// Alice's server, and Bob's on the slow engine.
    fn two(net: &Net) -> (Rooms, Rooms) {
        let a = net.server_on("a.example", 1, Db::new(Memory::default()));
        (a, net.server_on("b.example", 2, Db::new(Slow::default())))
    }

    async fn open_room(a: &Rooms) -> OwnedRoomId {
        room(a, ALICE, json!({ "preset": "public_chat" })).await
    }

    /// Alice says something.
    async fn say(a: &Rooms, id: &RoomId) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": "whole" }).as_object().unwrap().clone();
        let draft = Draft::message(TimelineEventType::RoomMessage, content);
        a.send(&actor(ALICE), id, draft, None).await.unwrap()
    }

    async fn join(net: &Net, b: &Rooms, id: &RoomId) {
        b.join(&actor(BOB), id, vec![server_name!("a.example").to_owned()], Map::new()).await.unwrap();
        net.deliver().await;
    }

    async fn place(rooms: &Rooms, id: &RoomId, event: &OwnedEventId) -> (RoomNid, EventNum) {
        let desk = Desk::open(&rooms.0, id).await.unwrap();
        (desk.nid, desk.reader.event_num(desk.nid, event).await.unwrap().unwrap())
    }

    async fn stored(rooms: &Rooms, (nid, num): (RoomNid, EventNum)) -> String {
        rooms.store().read().pdu(nid, num).await.unwrap().json.to_string()
    }

    /// Gives up after a second.
    async fn give_up<T>(rooms: &Rooms, work: impl Future<Output = T>) {
        assert!(rooms.0.world.timeout(Duration::from_secs(1), work).await.is_none());
        sleep(2 * HOUR).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_filled_in_is_whole_whoever_gives_up() {
        let net = Net::default();
        let (a, b) = two(&net);
        let id = open_room(&a).await;
        join(&net, &b, &id).await;
        let said = say(&a, &id).await;
        net.deliver().await;
        let (nid, num) = place(&b, &id, &said).await;
        let mut desk = Desk::open(&b.0, &id).await.unwrap();
        let rules = desk.rules;
        let whole = Pdu::parse(rules, stored(&b, (nid, num)).await.as_bytes()).unwrap();
        let blank = redact::event(rules, &whole).unwrap();
        desk.tx.complete_event(nid, num, &StoredPdu::new(said, blank.json()));
        let at = b.store().commit(desk.seal()).await.unwrap();
        b.store().forget(at, nid, &Removed { events: vec![num], ids: Vec::new() });
        assert!(!stored(&b, (nid, num)).await.contains("whole"));
        let proven = b.0.check_one(rules, whole).await.unwrap();
        let checked = Checked::from_handshake(server_name!("a.example"), proven);
        give_up(&b, Box::pin(b.0.fill_in(&checked, num))).await;
        assert!(stored(&b, (nid, num)).await.contains("whole"));
    }

    #[tokio::test(start_paused = true)]
    async fn old_history_that_has_expired_is_not_kept_in_memory_whoever_gives_up() {
        let net = Net::default();
        let (a, b) = two(&net);
        let retention = Some(Policy { default_days: 7, minimum_days: 1, maximum_days: 0 });
        b.reconfigure(Config { retention, ..Config::default() });
        let id = open_room(&a).await;
        let said = say(&a, &id).await;
        advance(Duration::from_hours(7 * 24)).await;
        join(&net, &b, &id).await;
        give_up(&b, Box::pin(b.fetch_older(&id, 50))).await;
        assert!(!stored(&b, place(&b, &id, &said).await).await.contains("whole"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_away_at_once_is_not_kept_in_memory_whoever_gives_up() {
        let net = Net::default();
        let (a, b) = two(&net);
        let retention = Some(Policy { default_days: 7, minimum_days: 1, maximum_days: 0 });
        b.reconfigure(Config { retention, ..Config::default() });
        let id = open_room(&a).await;
        join(&net, &b, &id).await;
        let said = say(&a, &id).await;
        net.deliver().await;
        let at = place(&b, &id, &said).await;
        assert!(stored(&b, at).await.contains("whole"));
        advance(Duration::from_hours(7 * 24)).await;
        give_up(&b, Box::pin(b.expire_now(&id))).await;
        assert!(!stored(&b, at).await.contains("whole"));
    }
}
