//! What an accepted event does beside taking its place: relations and redactions.

use chappe_rules::{Pdu, power::Power, redact};
use chappe_store::{
    EventMeta, EventNum, StateRef,
    events::EventIdKey,
    relations::{Child, Relation},
};
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Result,
    desk::{Desk, Source, parsed},
};

#[derive(Deserialize)]
struct Relating {
    #[serde(rename = "m.relates_to")]
    relates_to: Value,
}

/// The relation type and the parent that an event names.
pub(crate) fn relation_of(pdu: &Pdu) -> Option<(String, OwnedEventId)> {
    if pdu.state_key().is_some() {
        return None;
    }
    let Relating { relates_to } = pdu.content_as()?;
    let rel_type = relates_to.get("rel_type")?.as_str()?;
    let parent = EventId::parse(relates_to.get("event_id")?.as_str()?).ok()?;
    (rel_type.len() <= 255).then(|| (rel_type.to_owned(), parent))
}

fn relation_row(pdu: &Pdu, num: EventNum, ordinal: i64) -> Option<Relation> {
    let (rel_type, parent) = relation_of(pdu)?;
    let child = Child { num, event_type: pdu.kind().to_string(), sender: pdu.sender().to_owned() };
    Some(Relation { parent: EventIdKey(parent), rel_type, ordinal, child })
}

impl Desk<'_> {
    /// Indexes an event that got a place in the timeline, and lets a redaction take effect.
    pub(crate) async fn index(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) -> Result<()> {
        let is_redacted = meta.redacted_by.some().is_some();
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
        Ok(())
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
                self.tx.await_redacted(self.nid, target, num);
            }
            return Ok(());
        };
        let (mut meta, stored) = match self.reader.events(self.nid, &[target_num]).await?.pop() {
            Some(event) => event,
            None => return Ok(()),
        };
        let pdu = parsed(self.rules, &stored)?;
        let Some(power) = self.power_at(before).await? else { return Ok(()) };
        if meta.redacted_by.some().is_some() || !redact::applies(redaction, &pdu, &power) {
            return Ok(());
        }
        if let Some(relation) = meta.ordinal.and_then(|ordinal| relation_row(&pdu, target_num, ordinal)) {
            self.tx.delete_relation(self.nid, &relation);
        }
        meta.redacted_by = num;
        self.tx.update_event(self.nid, target_num, &meta);
        Ok(())
    }

    /// The power levels at a state; none before the create event.
    pub(crate) async fn power_at(&self, at: StateRef) -> Result<Option<Power>> {
        let (create, levels) = (StateEventType::RoomCreate, StateEventType::RoomPowerLevels);
        let keys = [(create.clone(), String::new()), (levels.clone(), String::new())];
        let held = self.held_at(at, &keys).await?;
        let create = held.get(&create, "");
        Ok(create.map(|create| Power::new(self.rules, &create, held.get(&levels, "").as_ref())))
    }

    /// The redaction that came before the event it redacts, if one did and applies.
    pub(crate) async fn waiting_redaction(
        &mut self,
        pdu: &Pdu,
        source: Source,
        before: StateRef,
    ) -> Result<EventNum> {
        if source == Source::Here {
            // Nobody can have named it yet.
            return Ok(EventNum::NONE);
        }
        let waiting = self.reader.waiting_redactions(self.nid, pdu.event_id()).await?;
        let mut by = EventNum::NONE;
        for num in waiting {
            let at = self.reader.event_meta(self.nid, num).await?.before;
            let redaction = self.pdus(&[num]).await?;
            let at = if at == StateRef::EMPTY { before } else { at };
            let power = self.power_at(at).await?;
            if let (Some(power), Some(redaction)) = (power, redaction.first())
                && redact::applies(redaction, pdu, &power)
            {
                by = num;
            }
            self.tx.redacted_arrived(self.nid, pdu.event_id());
        }
        Ok(by)
    }
}
