//! Judged → Committed: the event's place, the states before and after it, and what becomes of the current state.

use chappe_store::{EventMeta, EventNum, Position, StateChange, StateRef, Status, gaps, state::StateKey};

use super::{
    Complete, Source,
    judge::{By, Judged, Verdict},
};
use crate::{Error, Inner, Result, desk::Desk, oversight::heads::MANY, turn::ATTEMPTS};

/// What one commit came to.
pub(super) enum Step {
    /// The event has its place.
    Done(Verdict),
    /// The states around the event are stored; the event still waits for its place.
    Staged,
}

impl Inner {
    /// Judges an event and gives it its place; tried again when another writer was first. Gives what the rules said, now
    /// or when the event first came.
    pub(crate) async fn settle(&self, complete: &Complete) -> Result<Verdict> {
        let _turn = self.turn(&complete.room).await;
        self.settle_in_turn(complete).await
    }

    /// As [`Inner::settle`], for whoever holds the room's turn.
    pub(crate) async fn settle_in_turn(&self, complete: &Complete) -> Result<Verdict> {
        for _ in 0..ATTEMPTS {
            let desk = Desk::open(self, &complete.room).await?;
            let Some(judged) = complete.judge(desk, By::ThenAndNow).await? else {
                return self.said_before(complete).await;
            };
            match judged.commit().await {
                Ok(Step::Done(verdict)) => {
                    if verdict != Verdict::Accepted {
                        tracing::info!(event = %complete.pdu.event_id(), ?verdict, "received event not followed");
                    }
                    return Ok(verdict);
                }
                Ok(Step::Staged) | Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }

    /// What was said of an event that has been judged. Whoever sends it again is told no more than the first time.
    async fn said_before(&self, complete: &Complete) -> Result<Verdict> {
        let desk = Desk::open(self, &complete.room).await?;
        let num = desk.own_num(&complete.pdu).await?.ok_or(Error::Retry)?;
        let refused = || "the event was refused before".to_owned();
        match desk.reader.event_meta(desk.nid, num).await?.status {
            Status::Accepted => Ok(Verdict::Accepted),
            Status::SoftFailed => Ok(Verdict::SoftFailed(refused())),
            Status::Rejected => Ok(Verdict::Rejected(refused())),
            Status::Outlier => Err(Error::Retry),
        }
    }
}

impl Judged<'_> {
    async fn commit(self) -> Result<Step> {
        let follows_all = self.desk.head.extremities.iter().all(|head| self.placing.prev.contains(head));
        match &self.verdict {
            Verdict::Accepted if follows_all && self.before.at == self.desk.state.current() => {
                self.commit_in_line().await
            }
            Verdict::Accepted => self.commit_on_fork().await,
            Verdict::SoftFailed(_) => self.commit_aside(Status::SoftFailed).await,
            Verdict::Rejected(_) => self.commit_aside(Status::Rejected).await,
            Verdict::Undecided(_) => Ok(Step::Done(self.verdict)),
        }
    }

    /// The event follows everything that is here: the usual case.
    async fn commit_in_line(mut self) -> Result<Step> {
        self.open_hole();
        let num = self.desk.append(self.placing.clone()).await?;
        let ordinal = self.desk.head.next_live - 1;
        self.note_gap(num, ordinal);
        let Judged { desk, verdict, .. } = self;
        desk.inner.store.commit(desk.seal()).await?;
        Ok(Step::Done(verdict))
    }

    /// The event leaves the current state alone.
    pub(super) async fn commit_aside(mut self, status: Status) -> Result<Step> {
        let after = match status {
            Status::Rejected => self.before.at,
            _ => self.state_after().await?,
        };
        let mut meta = self.meta(status, after, None);
        if status == Status::SoftFailed && meta.redacted_by.some().is_none() {
            meta.redacted_by = self.desk.wiped_already(&self.placing.pdu, self.before.at).await?;
        }
        let num = self.desk.number(&self.placing.pdu, self.placing.stored);
        self.desk.put(&self.placing.pdu, num, self.placing.stored.is_some(), meta);
        let Judged { desk, verdict, .. } = self;
        desk.inner.store.commit(desk.seal()).await?;
        Ok(Step::Done(verdict))
    }

    /// The event is one head among others: the current state becomes what all heads resolve to. States that are not
    /// on disk yet are staged first, with the event as an outlier: a crash between leaves nothing visible.
    async fn commit_on_fork(mut self) -> Result<Step> {
        let after = self.state_after().await?;
        let is_new = self.staged.is_none() && !(self.before.committed && after == self.before.at);
        if is_new {
            let num = self.desk.number(&self.placing.pdu, self.placing.stored);
            let meta = self.meta(Status::Outlier, after, None);
            self.desk.put(&self.placing.pdu, num, self.placing.stored.is_some(), meta);
            self.desk.inner.store.commit(self.desk.seal()).await?;
            return Ok(Step::Staged);
        }
        let servers = match self.placing.source {
            Source::Elsewhere => Vec::new(),
            Source::Here | Source::PassedOn => self.desk.servers().await?,
        };
        let pdu = self.placing.pdu.clone();
        let num = self.desk.number(&pdu, self.placing.stored);
        let changes = self.join_heads(num, after).await?;
        self.open_hole();
        let ordinal = self.desk.head.take_live_ordinal();
        let mut meta = self.meta(Status::Accepted, after, Some(ordinal));
        let (known, source) = (meta.redacted_by, self.placing.source);
        meta.redacted_by = self.desk.redaction_of((&pdu, num), known, source, self.before.at).await?;
        self.desk.put(&pdu, num, self.placing.stored.is_some(), meta.clone());
        self.desk.change_current(&changes).await?;
        self.desk.announce_members(&changes, Some(num));
        self.desk.announce(&pdu, num, self.placing.source, servers).await?;
        self.desk.index(&pdu, num, &meta).await?;
        self.note_gap(num, ordinal);
        let Judged { desk, verdict, .. } = self;
        desk.inner.store.commit(desk.seal()).await?;
        Ok(Step::Done(verdict))
    }

    /// The state after the event, as a version of its own if it is a state event.
    async fn state_after(&mut self) -> Result<StateRef> {
        if let Some(after) = self.staged {
            return Ok(after);
        }
        let Some((kind, key)) = self.placing.pdu.state() else { return Ok(self.before.at) };
        let num = self.placing.stored.unwrap_or(EventNum(self.desk.head.next_event));
        let change = StateChange { key: StateKey::new(kind, key), num };
        Ok(self.desk.state.branch(&self.desk.reader, self.before.at, &[change]).await?)
    }

    /// Makes the event, with the state `after`, a head if nothing follows it yet; gives what that changes in the
    /// current state.
    async fn join_heads(&mut self, num: EventNum, after: StateRef) -> Result<Vec<StateChange>> {
        let (placing, desk) = (&self.placing, &mut self.desk);
        let heads = desk.head.extremities.clone();
        desk.cover_heads(&placing.prev).await?;
        let metas = desk.reader.event_metas(desk.nid, &desk.head.extremities).await?;
        let followed = !metas.is_empty()
            && (self.followed || desk.is_followed(placing.pdu.event_id()).await?)
            && !desk.is_passed_over(&placing.pdu, self.before.at, &metas).await?;
        let mut refs = if followed { Vec::new() } else { vec![after] };
        for meta in metas {
            if !refs.contains(&meta.after) {
                refs.push(meta.after);
            }
        }
        if !followed {
            desk.head.extremities.push(num);
            desk.head.depth = desk.head.depth.max(placing.pdu.depth());
            let count = desk.head.extremities.len();
            if count > MANY {
                let world = &desk.inner.world;
                desk.inner.crowded.add(&desk.room_id, (count, MANY), (world.instant(), world.random()));
            }
        }
        let changes = desk.changes_beside_heads(after, &refs).await?;
        if followed && desk.changes_something(&changes).await? {
            // Only what was told of the state before those that follow it says so.
            desk.head.extremities = heads;
            return Ok(Vec::new());
        }
        Ok(changes)
    }

    fn meta(&self, status: Status, after: StateRef, ordinal: Option<i64>) -> EventMeta {
        EventMeta {
            position: Position(0),
            status,
            before: self.before.at,
            after,
            ordinal,
            redacted_by: self.redacted_by,
            auth: self.placing.auth.clone(),
            prev: self.placing.prev.clone(),
            expired: false,
            came: self.desk.came(&self.placing.pdu),
        }
    }

    /// Leaves room in the timeline where something is missing.
    fn open_hole(&mut self) {
        if !self.placing.missing.is_empty() {
            self.desk.head.open_hole();
        }
    }

    /// Remembers previous events that are missing, so that older history can be asked for, and so that they do not
    /// become heads when they come.
    fn note_gap(&mut self, num: EventNum, ordinal: i64) {
        let missing = self.placing.missing.clone();
        if !missing.is_empty() {
            self.desk.tx.put_gap(self.desk.nid, &gaps::Gap { ordinal, num, missing });
        }
    }
}
