//! What an accepted event does beside taking its place: relations and redactions.

use chappe_rules::{Pdu, power::Power, redact};
use chappe_store::{
    Direction, EventMeta, EventNum, StateRef, Status,
    events::EventIdKey,
    relations::{Child, Relation},
};
use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Draft, Error, Result,
    author::By,
    desk::{Desk, Source, parsed},
};

#[derive(Deserialize)]
struct Relating {
    #[serde(rename = "m.relates_to")]
    relates_to: Value,
}

#[derive(Default, Deserialize)]
struct Creators {
    #[serde(default)]
    additional_creators: Vec<String>,
}

/// The row under which an event is indexed that relates to another.
pub(crate) fn relation_row(pdu: &Pdu, num: EventNum, ordinal: i64) -> Option<Relation> {
    let (rel_type, parent) = pdu.relation()?;
    let child = Child { num, event_type: pdu.kind().to_string(), sender: pdu.sender().to_owned() };
    Some(Relation { parent: EventIdKey(parent), rel_type, ordinal, child })
}

/// Why no user of this server redacts events of this type: a create event stays as it is for everybody, and a list of servers
/// that is redacted lets none in.
fn lasts(kind: &TimelineEventType) -> Option<&'static str> {
    match kind {
        TimelineEventType::RoomCreate => Some("the event that made the room cannot be redacted"),
        TimelineEventType::RoomServerAcl => Some("a list of servers can be changed, not redacted"),
        _ => None,
    }
}

/// Related events redacted with the one they relate to, at most.
const MOST_REDACTED: usize = 500;
/// Reactions of one event that are looked through for a duplicate, at most.
const MOST_REACTIONS: usize = 1_000;

impl Desk<'_> {
    /// Refuses drafts of local users whose effect the specification forbids: redacting what one may not redact, reacting
    /// twice in the same way, and beginning a thread inside another relation.
    pub(crate) async fn check_effects(&self, sender: &UserId, draft: &Draft) -> Result<()> {
        if let Some(target) = &draft.redacts {
            return self.check_redaction(sender, target).await;
        }
        self.check_form(draft).await?;
        let relates = draft.content.get("m.relates_to").filter(|_| draft.state_key.is_none());
        let text = |field: &str| relates?.get(field)?.as_str();
        let Some(parent) = text("event_id").and_then(|id| EventId::parse(id).ok()) else { return Ok(()) };
        match (text("rel_type"), text("key")) {
            (Some("m.annotation"), Some(key)) => self.check_reaction(sender, draft, &parent, key).await,
            (Some("m.thread"), _) => self.check_root(parent).await,
            _ => Ok(()),
        }
    }

    async fn check_reaction(
        &self,
        sender: &UserId,
        draft: &Draft,
        parent: &EventId,
        key: &str,
    ) -> Result<()> {
        let wanted = (parent, "m.annotation");
        let known = self.reader.related(self.nid, wanted, Direction::Forward, None, MOST_REACTIONS).await?;
        let own = known.into_iter().map(|(_, child)| child);
        let own = own.filter(|child| child.sender == sender && child.event_type == draft.kind.to_string());
        let nums: Vec<EventNum> = own.map(|child| child.num).collect();
        let said = |pdu: &Pdu| {
            pdu.content_as::<Relating>().and_then(|c| Some(c.relates_to.get("key")?.as_str()? == key))
        };
        if self.pdus(&nums).await?.iter().any(|pdu| said(pdu) == Some(true)) {
            return Err(Error::DuplicateAnnotation);
        }
        Ok(())
    }

    /// Refuses the root of a thread that relates to another event itself. One that is not here may be any.
    ///
    /// Specification: client-server API, "Validation of `m.thread` relationships".
    async fn check_root(&self, root: OwnedEventId) -> Result<()> {
        let Some(num) = self.nums(&[root]).await?.into_iter().flatten().next() else { return Ok(()) };
        let found = match self.pdus(&[num]).await {
            Err(Error::NotFound(_)) => return Ok(()),
            found => found?,
        };
        let relates = found.iter().any(|pdu| pdu.relation().is_some());
        // With the redaction of an event its relation is gone.
        if relates && !self.is_redacted(num).await? {
            let refusal = "a thread cannot begin at an event that relates to another one";
            return Err(Error::InvalidParam(refusal.to_owned()));
        }
        Ok(())
    }

    /// Refuses state that can never be right, whoever sends it: a second create event, power levels for creators.
    async fn check_form(&self, draft: &Draft) -> Result<()> {
        match (&draft.kind, draft.state_key.as_deref()) {
            (TimelineEventType::RoomCreate, Some(_)) => {
                Err(Error::InvalidParam("a room is created once".to_owned()))
            }
            (TimelineEventType::RoomPowerLevels, Some("")) => self.check_creators_have_no_level(draft).await,
            _ => Ok(()),
        }
    }

    async fn check_creators_have_no_level(&self, draft: &Draft) -> Result<()> {
        if !self.rules.authorization.explicitly_privilege_room_creators {
            return Ok(());
        }
        let Some(users) = draft.content.get("users").and_then(Value::as_object) else { return Ok(()) };
        let Some(create) = self.current(StateEventType::RoomCreate, "").await? else { return Ok(()) };
        let more: Creators = create.content_as().unwrap_or_default();
        let creators = more.additional_creators.iter().map(String::as_str).chain([create.sender().as_str()]);
        for creator in creators {
            if users.contains_key(creator) {
                return Err(Error::InvalidParam(format!(
                    "{creator} created the room and has no power level"
                )));
            }
        }
        Ok(())
    }

    /// Redacts what relates to an event that `draft` redacts, as far as the draft asks for it and the sender may.
    pub(crate) async fn redact_related(&mut self, by: By<'_>, draft: &Draft) -> Result<()> {
        let (Some(target), [_, ..]) = (&draft.redacts, &draft.with_relations[..]) else { return Ok(()) };
        let mut nums = Vec::new();
        let types = if draft.with_relations.iter().any(|with| with == "*") {
            self.reader.relation_types(self.nid, target, MOST_REDACTED).await?
        } else {
            draft.with_relations.iter().take(MOST_REDACTED).cloned().collect()
        };
        for rel_type in types {
            let of = (&**target, &*rel_type);
            let related = self.reader.related(self.nid, of, Direction::Forward, None, MOST_REDACTED).await?;
            nums.extend(related.into_iter().map(|(_, child)| child.num));
        }
        nums.truncate(MOST_REDACTED);
        for pdu in self.pdus(&nums).await? {
            let event = pdu.event_id().to_owned();
            if self.check_redaction(by.sender, &event).await.is_ok() {
                let draft = Draft { redacts: Some(event), with_relations: Vec::new(), ..draft.clone() };
                self.author_unasked(by, draft).await?;
            }
        }
        Ok(())
    }

    async fn check_redaction(&self, sender: &UserId, target: &EventId) -> Result<()> {
        let power = self.power_at(self.state.current()).await?;
        let moderates = power.is_none_or(|power| power.of(sender) >= UserPowerLevel::Int(power.to_redact()));
        let Some(num) = self.reader.event_num(self.nid, target).await? else {
            // Other servers may have it; it is redacted here if it ever comes.
            let elsewhere = self.reader.event_address(target).await?.is_some();
            let may_exist = !elsewhere && self.servers().await?.len() > 1;
            return if moderates && may_exist { Ok(()) } else { Err(Error::NotFound("event")) };
        };
        let Some(pdu) = self.pdus(&[num]).await?.pop() else { return Err(Error::NotFound("event")) };
        if let Some(reason) = lasts(pdu.kind()) {
            return Err(Error::Forbidden(reason.to_owned()));
        }
        if moderates || pdu.sender() == sender {
            return Ok(());
        }
        Err(Error::Forbidden("you may not redact this event".to_owned()))
    }

    /// Indexes an event that got a place in the timeline, and lets a redaction take effect.
    pub(crate) async fn index(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) -> Result<()> {
        let is_redacted = meta.redacted_by.some().is_some();
        if is_redacted {
            self.note_redacted(pdu);
        }
        if let Some(ordinal) = meta.ordinal.filter(|_| !is_redacted)
            && let Some(relation) = relation_row(pdu, num, ordinal)
        {
            self.tx.put_relation(self.nid, &relation);
        }
        if *pdu.kind() == TimelineEventType::RoomRedaction
            && let Some(target) = pdu.redacts()
        {
            self.redact(pdu, num, meta.before, target).await?;
        }
        self.wipe(pdu, num, meta.before).await
    }

    /// Takes back what [`Desk::index`] did for an event that loses its place.
    pub(crate) async fn unindex(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) -> Result<()> {
        // What was redacted has lost its relation already.
        let relation = meta.ordinal.filter(|_| meta.redacted_by.some().is_none());
        if let Some(relation) = relation.and_then(|ordinal| relation_row(pdu, num, ordinal)) {
            self.tx.delete_relation(self.nid, &relation);
        }
        self.unwipe(pdu, num, meta.before).await?;
        let Some(target) = pdu.redacts().filter(|_| *pdu.kind() == TimelineEventType::RoomRedaction) else {
            return Ok(());
        };
        let Some(target) = self.reader.event_num(self.nid, target).await? else { return Ok(()) };
        let mut meta = self.reader.event_meta(self.nid, target).await?;
        if meta.redacted_by == num {
            self.unredact(target, &mut meta).await?;
        }
        Ok(())
    }

    /// Shows an event again whose redaction is taken back, with what it relates to, unless another one applies.
    pub(crate) async fn unredact(&mut self, num: EventNum, meta: &mut EventMeta) -> Result<()> {
        let Some(pdu) = self.pdus(&[num]).await?.pop() else { return Ok(()) };
        meta.redacted_by = self.noted_redaction(&pdu, meta.before, meta.redacted_by).await?;
        self.tx.update_event(self.nid, num, meta);
        if meta.redacted_by.some().is_some() {
            return Ok(());
        }
        self.redacted.remove(&num);
        let ordinal = meta.ordinal.filter(|_| meta.status == Status::Accepted);
        if let Some(relation) = ordinal.and_then(|ordinal| relation_row(&pdu, num, ordinal)) {
            self.tx.put_relation(self.nid, &relation);
        }
        self.retell(&pdu);
        self.recall_retention(&pdu, num).await
    }

    async fn redact(
        &mut self,
        redaction: &Pdu,
        num: EventNum,
        before: StateRef,
        target: &EventId,
    ) -> Result<()> {
        let found = self.reader.event_num(self.nid, target).await?;
        let Some(target_num) = found else {
            // Another room's event never counts; one that is only late will.
            if self.reader.event_address(target).await?.is_none() {
                self.tx.note_redaction(self.nid, target, num);
            }
            return Ok(());
        };
        let found = match self.reader.events(self.nid, &[target_num]).await {
            // Nothing is left to be redacted.
            Err(chappe_store::Error::Gone) => return Ok(()),
            found => found?.pop(),
        };
        let Some((mut meta, stored)) = found else { return Ok(()) };
        let pdu = parsed(self.rules, &stored)?;
        let Some(power) = self.power_at(before).await? else { return Ok(()) };
        if !redact::applies(self.rules, redaction, &pdu, &power) {
            return Ok(());
        }
        if meta.redacted_by.some().is_some() || self.redacted.contains(&target_num) {
            // Should the other one be taken back.
            self.tx.note_redaction(self.nid, target, num);
            return Ok(());
        }
        if let Some(relation) = meta.ordinal.and_then(|ordinal| relation_row(&pdu, target_num, ordinal)) {
            self.tx.delete_relation(self.nid, &relation);
        }
        self.redacted.insert(target_num);
        self.note_redacted(&pdu);
        meta.redacted_by = num;
        self.tx.update_event(self.nid, target_num, &meta);
        self.retell(&pdu);
        self.forget_guest_access(&pdu, target_num).await?;
        self.forget_retention(&pdu, target_num).await
    }

    /// The power levels at a state; none before the create event.
    pub(crate) async fn power_at(&self, at: StateRef) -> Result<Option<Power>> {
        let (create, levels) = (StateEventType::RoomCreate, StateEventType::RoomPowerLevels);
        let keys = [(create.clone(), String::new()), (levels.clone(), String::new())];
        let held = self.held_at(at, &keys).await?;
        let create = held.get(&create, "");
        Ok(create.map(|create| Power::new(self.rules, &create, held.get(&levels, "").as_ref())))
    }

    /// By what an event is redacted that gets its place: by what redacted it while it had none, `known`, or by what came
    /// before it.
    pub(crate) async fn redaction_of(
        &mut self,
        (pdu, num): (&Pdu, EventNum),
        known: EventNum,
        source: Source,
        before: StateRef,
    ) -> Result<EventNum> {
        if !self.stands(known).await? {
            return self.waiting_redaction((pdu, num), source, before).await;
        }
        self.redacted.insert(num);
        Ok(known)
    }

    /// Whether a redaction, if it is one, still has its own place.
    async fn stands(&self, redaction: EventNum) -> Result<bool> {
        let Some(redaction) = redaction.some() else { return Ok(false) };
        match self.reader.event_meta(self.nid, redaction).await {
            // Purged: nobody takes it back any more.
            Err(chappe_store::Error::Gone) => Ok(true),
            found => Ok(found?.status == Status::Accepted),
        }
    }

    /// The redaction that came before the event it redacts, if one did and applies.
    async fn waiting_redaction(
        &mut self,
        (pdu, num): (&Pdu, EventNum),
        source: Source,
        before: StateRef,
    ) -> Result<EventNum> {
        if source == Source::Here {
            // Nobody can have named it yet.
            return Ok(EventNum::NONE);
        }
        let by = self.noted_redaction(pdu, before, EventNum::NONE).await?;
        if by.some().is_some() {
            self.redacted.insert(num);
        }
        Ok(by)
    }

    /// A redaction that was noted for an event and applies, another one than `but`.
    async fn noted_redaction(&self, pdu: &Pdu, before: StateRef, but: EventNum) -> Result<EventNum> {
        for redaction in self.reader.noted_redactions(self.nid, pdu.event_id()).await? {
            if redaction == but {
                continue;
            }
            let meta = match self.reader.event_meta(self.nid, redaction).await {
                Err(chappe_store::Error::Gone) => continue,
                meta => meta?,
            };
            if meta.status != Status::Accepted {
                continue;
            }
            let found = self.pdus(&[redaction]).await?;
            let at = if meta.before == StateRef::EMPTY { before } else { meta.before };
            let power = self.power_at(at).await?;
            if let (Some(power), Some(found)) = (power, found.first())
                && redact::applies(self.rules, found, pdu, &power)
            {
                return Ok(redaction);
            }
        }
        Ok(EventNum::NONE)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{EventId, event_id, events::TimelineEventType};
    use serde_json::json;

    use crate::{
        Draft, Error,
        testing::{Town, actor, object},
    };

    #[tokio::test]
    async fn a_thread_begins_at_no_event_that_relates_to_another() {
        let (town, anna) = (Town::new(), actor("anna"));
        let room = town.room(&anna, json!({})).await;
        let relate = async |kind: &str, to: &EventId| {
            let relation = json!({ "rel_type": kind, "event_id": to });
            let content = object(json!({ "body": kind, "m.relates_to": relation }));
            let draft = Draft::message(TimelineEventType::RoomMessage, content);
            town.rooms.send(&anna, &room, draft, None).await
        };
        let root = town.say(&anna, &room, json!({ "body": "root" })).await;
        let reply = relate("m.thread", &root).await.unwrap();
        let about = relate("m.reference", &reply).await.unwrap();
        for event in [&reply, &about] {
            let nested = relate("m.thread", event).await;
            assert!(matches!(nested, Err(Error::InvalidParam(_))), "{nested:?}");
        }
        relate("m.thread", &root).await.unwrap();
        relate("m.thread", event_id!("$elsewhere")).await.unwrap();
        let answer = json!({ "body": "x", "m.relates_to": { "m.in_reply_to": { "event_id": root } } });
        let answer = town.say(&anna, &room, answer).await;
        relate("m.thread", &answer).await.unwrap();
        town.rooms.send(&anna, &room, Draft::redaction(&about, None), None).await.unwrap();
        relate("m.thread", &about).await.unwrap();
    }
}
