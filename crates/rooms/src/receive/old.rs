//! History that this server missed: fetched on demand, put where it belongs in the timeline.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rules::Pdu;
use chappe_store::{EventMeta, EventNum, LogEntry, StateRef, Status, gaps};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use super::{
    Budget, Checked, Complete, NOTHING_OLDER, Proven,
    judge::{By, Verdict},
    walk::Walk,
};
use crate::{
    Error, Inner, Result, Rooms,
    desk::{Desk, Source},
    turn::ATTEMPTS,
    wipe::Wipes,
};

/// Refused events that are looked behind at most.
const MOST_REFUSED: usize = 500;
/// Missing events that are asked for at once: what is before the others is asked for later.
const MOST_ASKED: usize = 50;
/// Missing events that one event of old history has remembered. All lead back to the same beginning.
const MOST_MISSING: usize = 250;

impl Rooms {
    /// Fetches events older than the oldest this server has of `room`, up to about `limit`; gives how many came.
    pub async fn fetch_older(&self, room: &RoomId, limit: u16) -> Result<usize> {
        self.fill_gap(room, i64::MIN, limit).await
    }

    /// Fetches events that are missing before the event at `ordinal`, up to about `limit`; gives how many came.
    /// [`i64::MIN`] stands for the oldest event with something missing before it.
    pub(crate) async fn fill_gap(&self, room: &RoomId, ordinal: i64, limit: u16) -> Result<usize> {
        let desk = Desk::open(&self.0, room).await?;
        let gaps = desk.reader.gaps_from(desk.nid, ordinal, 1).await?;
        let Some(gap) = gaps.into_iter().find(|gap| ordinal == i64::MIN || gap.ordinal == ordinal) else {
            return Ok(0);
        };
        if !desk.is_here().await? {
            return Ok(0);
        }
        let servers = desk.likely_servers(gap.ordinal, self.config().backfill_servers).await?;
        drop(desk);
        let Some(missing) = gap.missing.first() else { return Ok(0) };
        for server in servers {
            let (asked, now) = ((server.clone(), missing.clone()), self.0.world.instant());
            if self.0.nothing_older.holds(&asked, now) {
                continue;
            }
            match self.0.fetch_before(&server, room, &gap, limit).await {
                Ok(0) => {}
                Ok(count) => return Ok(count),
                Err(error @ Error::Store(_)) => return Err(error),
                // Another time it may have them.
                Err(Error::Unreachable | Error::Retry) => continue,
                Err(error) => tracing::debug!(%room, %server, %error, "old events could not be had"),
            }
            self.0.nothing_older.add(asked, (now, NOTHING_OLDER));
        }
        Ok(0)
    }
}

impl Inner {
    async fn fetch_before(
        &self,
        server: &OwnedServerName,
        room: &RoomId,
        gap: &gaps::Gap,
        limit: u16,
    ) -> Result<usize> {
        let limit = limit.min(100);
        let asked = gap.missing.get(..MOST_ASKED).unwrap_or(&gap.missing);
        let mut raws = self.peers.backfill(server, room, asked, limit).await?;
        // Checking has keys of every sender's server looked for.
        raws.truncate(limit.into());
        let rules = Desk::open(self, room).await?.rules;
        let mut walk = Walk::new(&gap.missing);
        walk.go_on(self, room, self.check_page(rules, room, &raws).await).await?;
        let mut proven = walk.into_events();
        // What this server may not see comes redacted from everybody.
        if self.sees_before(room, gap).await.unwrap_or_default() {
            proven = self.intact(server, (room, rules), proven).await;
        }
        let mut budget = Budget::for_page(&self.config(), server);
        let (mut came, mut staged, mut lacking) = (0, Vec::new(), false);
        for proven in proven {
            let event = proven.pdu().event_id().to_owned();
            let checked = Checked::from_handshake(server, proven);
            match self.stage_old(checked, &mut budget).await {
                Ok(None) => {}
                Ok(Some(status)) => {
                    came += 1;
                    staged.extend((status == Status::Outlier).then_some(event));
                }
                Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%event, %error, "old event not taken");
                    if matches!(error, Error::Unreachable) {
                        // It may be had another time: until then what is older stays staged, or it would be in its place.
                        lacking = true;
                        staged.clear();
                    }
                }
            }
        }
        if lacking && staged.is_empty() {
            return Err(Error::Unreachable);
        }
        staged.reverse();
        self.place_old(room, &staged, gap).await?;
        Ok(came)
    }

    /// As [`Inner::check_raws`], of old history: an event there may name more others than one may today.
    async fn check_page(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        raws: &[Box<RawValue>],
    ) -> Vec<Proven> {
        let pdus = raws.iter().filter_map(|raw| Pdu::parse_old(rules, raw.get().as_bytes()).ok());
        let pdus = pdus.filter(|pdu| pdu.room_id() == room).collect();
        self.check_all(rules, pdus).await.into_iter().filter_map(Result::ok).collect()
    }

    /// Whether this server may see what was said just before the event that follows a gap.
    async fn sees_before(&self, room: &RoomId, gap: &gaps::Gap) -> Result<bool> {
        let view = self.view(room).await?;
        let meta = view.reader.event_meta(view.nid, gap.num).await?;
        view.server_sees_at(&self.server, meta.before).await
    }

    /// Judges an old event and stores it with the state around it, without a place yet. Gives what it is now; `None` if it was
    /// known.
    async fn stage_old(&self, checked: Checked, budget: &mut Budget) -> Result<Option<Status>> {
        if self.is_settled(&checked).await? {
            return Ok(None);
        }
        let complete = checked.complete_as(self, budget, Source::Elsewhere).await?;
        self.stage(&complete).await
    }

    /// Judges an event by the state before it and stores it with the state around it, without a place: as an outlier, or as
    /// refused, so that it never gets one. `None` if it was known.
    pub(super) async fn stage(&self, complete: &Complete) -> Result<Option<Status>> {
        let _turn = self.turn(&complete.room).await;
        for _ in 0..ATTEMPTS {
            let desk = Desk::open(self, &complete.room).await?;
            let Some(judged) = complete.judge(desk, By::Then).await? else { return Ok(None) };
            let status = match &judged.verdict {
                Verdict::Accepted => Status::Outlier,
                Verdict::SoftFailed(_) => Status::SoftFailed,
                Verdict::Rejected(_) => Status::Rejected,
                Verdict::Undecided(reason) => return Err(Error::HostilePeer(reason.clone())),
            };
            match judged.commit_aside(status).await {
                Ok(_) => return Ok(Some(status)),
                Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }

    /// Gives staged events their places, newest first, and says what is missing before them.
    async fn place_old(&self, room: &RoomId, events: &[OwnedEventId], gap: &gaps::Gap) -> Result<()> {
        let _turn = self.turn(room).await;
        for _ in 0..ATTEMPTS {
            let mut desk = Desk::open(self, room).await?;
            desk.place_old(events, gap).await?;
            let (nid, events) = (desk.nid, std::mem::take(&mut desk.stripped));
            match self.replace(desk.seal(), nid, events).await {
                Ok(()) => return Ok(()),
                Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }
}

impl Desk<'_> {
    async fn place_old(&mut self, events: &[OwnedEventId], gap: &gaps::Gap) -> Result<()> {
        let nums: Vec<EventNum> = self.nums(events).await?.into_iter().flatten().collect();
        let metas = self.reader.event_metas(self.nid, &nums).await?;
        let placeable = |meta: &EventMeta| meta.status == Status::Outlier;
        let mut found: Vec<_> = nums.into_iter().zip(metas).filter(|(_, meta)| placeable(meta)).collect();
        let (mut ordinal, older) = self.reader.free_before(self.nid, gap.ordinal).await?;
        let free = older.and_then(|older| usize::try_from(ordinal - older).ok());
        found.truncate(free.unwrap_or(usize::MAX));
        let now: BTreeSet<EventNum> = found.iter().map(|(num, _)| *num).collect();
        let after = self.reader.timeline_forward(self.nid, gap.ordinal, 1).await?;
        let position = match after.first() {
            Some(row) => row.position,
            // The event after the gap has expired.
            None => self.reader.event_meta(self.nid, gap.num).await?.position,
        };
        let (mut before, last) = (Vec::new(), ordinal);
        let wipes = self.wipes_among(&found).await?;
        let mut redactions: BTreeMap<OwnedEventId, EventNum> = BTreeMap::new();
        for (num, mut meta) in found {
            let Some(pdu) = self.pdus(&[num]).await?.pop() else { continue };
            meta.status = Status::Accepted;
            meta.ordinal = Some(ordinal);
            meta.position = position;
            let (known, at) = (meta.redacted_by, meta.before);
            meta.redacted_by = self.redaction_of((&pdu, num), known, Source::Elsewhere, at).await?;
            if meta.redacted_by.some().is_none()
                && let Some(redaction) = redactions.get(pdu.event_id())
                && self.redacted.contains(&num)
            {
                // Its redaction has got its place just now.
                meta.redacted_by = *redaction;
            }
            redactions.extend(pdu.redacts().map(|target| (target.to_owned(), num)));
            if meta.redacted_by.some().is_none() {
                meta.redacted_by = self.wiped_by(&wipes, &pdu, meta.before).await?;
            }
            let stripped = self.place_stripped(&pdu, num, &meta)?;
            if !stripped && ordinal > 0 {
                self.tx.place_event_at(self.nid, num, &meta);
            } else if !stripped {
                self.tx.place_event(self.nid, num, &meta);
            }
            self.head.next_back = self.head.next_back.min(ordinal - 1);
            if !stripped {
                self.index(&pdu, num, &meta).await?;
            }
            let mut missing = self.unplaced(pdu.prev_events(), &now).await?;
            missing.truncate(MOST_MISSING);
            self.tx.put_gap(self.nid, &gaps::Gap { ordinal, num, missing });
            before.extend(meta.prev);
            ordinal -= 1;
        }
        if ordinal < last {
            self.tx.log(LogEntry::History { room: self.nid.0, first: ordinal + 1, last });
        }
        self.log_redacted(&now);
        let mut missing = self.unplaced(&gap.missing, &now).await?;
        // Those that were noted before come first and stay.
        missing.truncate(MOST_MISSING.max(gap.missing.len()));
        self.tx.narrow_gap(self.nid, gap, missing);
        self.follow_old(&before).await
    }

    /// Tells the log which events that had their places were redacted by some that get theirs `now`.
    fn log_redacted(&mut self, now: &BTreeSet<EventNum>) {
        let before = self.redacted.iter().filter(|num| !now.contains(num));
        let mut events: Vec<u32> = before.map(|num| num.0).collect();
        events.sort_unstable();
        if !events.is_empty() {
            self.tx.log(LogEntry::Purged { room: self.nid.0, events });
        }
    }

    /// Kicks and bans that redact what those who sent these events said.
    async fn wipes_among(&self, found: &[(EventNum, EventMeta)]) -> Result<Wipes> {
        let nums: Vec<EventNum> = found.iter().map(|(num, _)| *num).collect();
        let senders: BTreeSet<OwnedUserId> =
            self.pdus(&nums).await?.iter().map(|pdu| pdu.sender().to_owned()).collect();
        self.wipes_of(&senders.into_iter().collect::<Vec<_>>()).await
    }

    /// Heads that old events rest on are heads no more, if the current state stays what it is without them.
    async fn follow_old(&mut self, prev: &[EventNum]) -> Result<()> {
        let old = self.head.extremities.clone();
        self.cover_heads(prev).await?;
        if self.head.extremities.is_empty() || self.head.extremities == old {
            self.head.extremities = old;
            return Ok(());
        }
        let metas = self.reader.event_metas(self.nid, &self.head.extremities).await?;
        let refs: BTreeSet<StateRef> = metas.iter().map(|meta| meta.after).collect();
        let changes = self.changes_to_states(&refs.into_iter().collect::<Vec<_>>()).await?;
        if self.changes_something(&changes).await? {
            // Only what was told of the state before those that follow them says so.
            self.head.extremities = old;
        }
        Ok(())
    }

    /// Events that have no place in the timeline and are not placed right now.
    async fn unplaced(&self, ids: &[OwnedEventId], now: &BTreeSet<EventNum>) -> Result<Vec<OwnedEventId>> {
        let missing = self.without_place(ids).await?;
        let nums = self.nums(&missing).await?;
        let placed_now = |num: &Option<EventNum>| num.is_some_and(|num| now.contains(&num));
        let left = missing.into_iter().zip(nums).filter(|(_, num)| !placed_now(num));
        Ok(left.map(|(id, _)| id).collect())
    }

    /// Those of `ids` that have no place here. Events that were refused will never have one: what is missing behind them is
    /// meant instead.
    pub(super) async fn without_place(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>> {
        let (mut missing, mut todo) = (Vec::new(), ids.to_vec());
        let mut seen: BTreeSet<OwnedEventId> = ids.iter().cloned().collect();
        let most = ids.len() + MOST_REFUSED;
        while !todo.is_empty() && seen.len() <= most {
            let mut refused = Vec::new();
            for (id, known) in self.known(&todo).await? {
                match known {
                    Some((_, meta)) if meta.status == Status::Accepted => {}
                    Some((num, meta)) if meta.status != Status::Outlier => refused.push(num),
                    _ => missing.push(id.clone()),
                }
            }
            let pdus = match self.pdus(&refused).await {
                // Purged, and what was before it.
                Err(Error::NotFound(_)) => break,
                pdus => pdus?,
            };
            let before = pdus.iter().flat_map(Pdu::prev_events);
            todo = before.filter(|id| seen.insert((*id).clone())).cloned().collect();
        }
        Ok(missing)
    }
}
