//! Judged → Committed: the event's place, the states before and after it, and what becomes of the current state.

use chappe_store::{EventMeta, EventNum, Position, StateChange, StateRef, Status, gaps, state::StateKey};

use super::{
    Before, Complete,
    judge::{Judged, Verdict},
};
use crate::{Error, Inner, Result, desk::Desk, turn::ATTEMPTS};

/// What one commit came to.
pub(super) enum Step {
    /// The event has its place.
    Done(Verdict),
    /// The states around the event are stored; the event still waits for its place.
    Staged,
}

impl Inner {
    /// Judges an event and gives it its place; tried again when another writer was first. Gives what the rules said,
    /// `None` if it had its place already.
    pub(crate) async fn settle(&self, complete: &Complete) -> Result<Option<Verdict>> {
        let _turn = self.turn(&complete.room).await;
        self.settle_in_turn(complete).await
    }

    /// As [`Inner::settle`], for whoever holds the room's turn.
    pub(crate) async fn settle_in_turn(&self, complete: &Complete) -> Result<Option<Verdict>> {
        for _ in 0..ATTEMPTS {
            let desk = Desk::open(self, &complete.room).await?;
            let Some(judged) = complete.judge(desk).await? else { return Ok(None) };
            match judged.commit(complete).await {
                Ok(Step::Done(verdict)) => {
                    if verdict != Verdict::Accepted {
                        tracing::info!(event = %complete.pdu.event_id(), ?verdict, "received event not followed");
                    }
                    return Ok(Some(verdict));
                }
                Ok(Step::Staged) | Err(Error::Retry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Retry)
    }
}

impl Judged<'_> {
    async fn commit(self, complete: &Complete) -> Result<Step> {
        let follows_all = self.desk.head.extremities.iter().all(|head| self.placing.prev.contains(head));
        match &self.verdict {
            Verdict::Accepted if follows_all && self.before.at == self.desk.state.current() => {
                self.commit_in_line(complete).await
            }
            Verdict::Accepted => self.commit_on_fork(complete).await,
            Verdict::SoftFailed(_) => self.commit_aside(Status::SoftFailed).await,
            Verdict::Rejected(_) => self.commit_aside(Status::Rejected).await,
        }
    }

    /// The event follows everything that is here: the usual case.
    async fn commit_in_line(mut self, complete: &Complete) -> Result<Step> {
        self.open_hole(complete);
        let num = self.desk.append(self.placing.clone()).await?;
        let ordinal = self.desk.head.next_live - 1;
        self.note_gap(complete, num, ordinal).await?;
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
        let meta = self.meta(status, after, None);
        let num = self.desk.number(&self.placing.pdu, self.placing.stored);
        self.desk.put(&self.placing.pdu, num, self.placing.stored.is_some(), meta);
        let Judged { desk, verdict, .. } = self;
        desk.inner.store.commit(desk.seal()).await?;
        Ok(Step::Done(verdict))
    }

    /// The event is one head among others: the current state becomes what all heads resolve to. States that are not
    /// on disk yet are staged first, with the event as an outlier: a crash between leaves nothing visible.
    async fn commit_on_fork(mut self, complete: &Complete) -> Result<Step> {
        let after = self.state_after().await?;
        let is_new = self.staged.is_none() && !(self.before.committed && after == self.before.at);
        if is_new {
            let num = self.desk.number(&self.placing.pdu, self.placing.stored);
            let meta = self.meta(Status::Outlier, after, None);
            self.desk.put(&self.placing.pdu, num, self.placing.stored.is_some(), meta);
            self.desk.inner.store.commit(self.desk.seal()).await?;
            return Ok(Step::Staged);
        }
        let servers = self.desk.servers().await?;
        let pdu = self.placing.pdu.clone();
        let num = self.desk.number(&pdu, self.placing.stored);
        let changes = self.changes_with(after).await?;
        self.open_hole(complete);
        let ordinal = self.desk.head.take_live_ordinal();
        let mut meta = self.meta(Status::Accepted, after, Some(ordinal));
        meta.redacted_by = self.desk.waiting_redaction(&pdu, self.placing.source, self.before.at).await?;
        self.desk.put(&pdu, num, self.placing.stored.is_some(), meta.clone());
        self.desk.follow_heads(&pdu, num, &meta.prev);
        self.desk.change_current(&changes).await?;
        self.desk.announce(&pdu, num, self.placing.source, servers).await?;
        self.desk.index(&pdu, num, &meta).await?;
        self.note_gap(complete, num, ordinal).await?;
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

    /// What changes in the current state when the event, with the state `after`, joins the other heads.
    async fn changes_with(&self, after: StateRef) -> Result<Vec<StateChange>> {
        let desk = &self.desk;
        let others: Vec<EventNum> =
            desk.head.extremities.iter().copied().filter(|head| !self.placing.prev.contains(head)).collect();
        let mut refs = vec![after];
        for meta in desk.reader.event_metas(desk.nid, &others).await? {
            if !refs.contains(&meta.after) {
                refs.push(meta.after);
            }
        }
        desk.changes_to_states(&refs).await
    }

    fn meta(&self, status: Status, after: StateRef, ordinal: Option<i64>) -> EventMeta {
        EventMeta {
            position: Position(0),
            status,
            before: self.before.at,
            after,
            ordinal,
            redacted_by: EventNum::NONE,
            auth: self.placing.auth.clone(),
            prev: self.placing.prev.clone(),
        }
    }

    /// Leaves room in the timeline where something may be missing.
    fn open_hole(&mut self, complete: &Complete) {
        if !matches!(complete.before, Before::Prevs) {
            self.desk.head.open_hole();
        }
    }

    /// Remembers previous events that are missing, so that older history can be asked for.
    async fn note_gap(&mut self, complete: &Complete, num: EventNum, ordinal: i64) -> Result<()> {
        if matches!(complete.before, Before::Prevs) {
            return Ok(());
        }
        let pdu = &self.placing.pdu;
        let known = self.desk.nums(pdu.prev_events()).await?;
        let is_missing = |known: Option<EventNum>| known.is_none_or(|num| !self.placing.prev.contains(&num));
        let missing =
            pdu.prev_events().iter().zip(known).filter(|(_, num)| is_missing(*num)).map(|(id, _)| id.clone());
        let gap = gaps::Gap { ordinal, num, missing: missing.collect() };
        self.desk.tx.put_gap(self.desk.nid, &gap);
        Ok(())
    }
}
