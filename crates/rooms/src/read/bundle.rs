//! Bundled aggregations: what an event says of the events that relate to it.

use std::collections::BTreeMap;

use chappe_rules::client::Form;
use chappe_store::{Direction, EventNum};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Actor, Result,
    read::{
        render::Bundle,
        view::{Event, View},
    },
    visible::Seen,
};

/// `m.relations` of one event.
pub(crate) type Bundles = BTreeMap<String, Value>;

/// Edits looked at to find the latest one that counts.
const EDITS: usize = 50;
/// References named at most.
const REFERENCES: usize = 100;
/// Replies looked at to find the latest visible one.
const REPLIES: usize = 5;
/// Replies looked at to know whether the user takes part, and for whoever ignores somebody how many there are without
/// them: what ignored users said before these is counted.
const PARTICIPANTS: usize = 1_000;

pub(crate) const KINDS: [&str; 3] = ["m.replace", "m.reference", "m.thread"];

impl View<'_> {
    /// The bundled aggregations of several events: one round trip where none has any.
    pub(crate) async fn bundles(
        &self,
        actor: &Actor,
        events: &[Seen],
        bundle: Bundle,
    ) -> Result<Vec<Bundles>> {
        let ids: Vec<_> = events.iter().map(|seen| seen.event.pdu.event_id()).collect();
        let counts = self.reader.relation_counts(self.nid, &ids, &KINDS).await?;
        let mut all = Vec::with_capacity(events.len());
        for (seen, counts) in events.iter().zip(counts) {
            let mut bundles = Bundles::new();
            let [edits, references, replies] = counts[..] else { continue };
            if edits > 0
                && let Some(edit) = self.latest_edit(actor, &seen.event).await?
            {
                let edit = self.render(actor, &[edit], Form::Full, Bundle::None).await?;
                bundles.insert(KINDS[0].to_owned(), serde_json::to_value(edit.first()).unwrap_or_default());
            }
            if references > 0
                && let Some(references) = self.references(&actor.user, &seen.event).await?
            {
                bundles.insert(KINDS[1].to_owned(), references);
            }
            if replies > 0
                && bundle == Bundle::All
                && let Some(thread) = self.thread(actor, &seen.event, replies).await?
            {
                bundles.insert(KINDS[2].to_owned(), thread);
            }
            all.push(bundles);
        }
        Ok(all)
    }

    /// The edit that replaces an event: by its sender, of its type, the latest by time, then by event id.
    ///
    /// Specification: client-server API, "Event replacements", "Validity of replacement events".
    pub(crate) async fn latest_edit(&self, actor: &Actor, event: &Event) -> Result<Option<Seen>> {
        let is_edit = event.pdu.relation().is_some_and(|(kind, _)| kind == KINDS[0]);
        if is_edit || event.pdu.state_key().is_some() || event.is_redacted() {
            return Ok(None);
        }
        let parent = (event.pdu.event_id(), KINDS[0]);
        let rows = self.reader.related(self.nid, parent, Direction::Backward, None, EDITS).await?;
        let kind = event.pdu.kind().to_string();
        let counts = |child: &chappe_store::relations::Child| {
            child.sender == event.pdu.sender() && child.event_type == kind
        };
        let nums: Vec<EventNum> =
            rows.into_iter().filter(|(_, child)| counts(child)).map(|(_, child)| child.num).collect();
        let edits =
            self.load(&nums).await?.into_iter().filter(|edit| !edit.is_redacted() && has_content(edit));
        let seen = self.visible(&actor.user, edits.collect()).await?;
        let rank = |seen: &Seen| (seen.event.pdu.origin_server_ts(), seen.event.pdu.event_id().to_owned());
        Ok(seen.into_iter().filter(|seen| !seen.event.is_redacted()).max_by_key(rank))
    }

    async fn references(&self, user: &UserId, event: &Event) -> Result<Option<Value>> {
        let ignored = self.ignored_by(user).await?;
        let parent = (event.pdu.event_id(), KINDS[1]);
        let rows = self.reader.related(self.nid, parent, Direction::Forward, None, REFERENCES).await?;
        let told = rows.into_iter().filter(|(_, child)| !ignored.contains(&child.sender));
        let nums: Vec<EventNum> = told.map(|(_, child)| child.num).collect();
        let events = self.load(&nums).await?;
        let seen = self.visible(user, events).await?;
        let chunk: Vec<Value> =
            seen.iter().map(|seen| json!({ "event_id": seen.event.pdu.event_id() })).collect();
        Ok((!chunk.is_empty()).then(|| json!({ "chunk": chunk })))
    }

    /// What a thread comes to without those whom the user ignores; nothing if the last replies are all theirs. Only for whoever
    /// ignores somebody more than a few replies are looked at.
    async fn thread(&self, actor: &Actor, root: &Event, count: u32) -> Result<Option<Value>> {
        let ignored = self.ignored_by(&actor.user).await?;
        let parent = (root.pdu.event_id(), KINDS[2]);
        let most = if ignored.is_empty() { REPLIES } else { PARTICIPANTS };
        let rows = self.reader.related(self.nid, parent, Direction::Backward, None, most).await?;
        let told = rows.iter().filter(|(_, child)| !ignored.contains(&child.sender));
        let nums: Vec<EventNum> = told.map(|(_, child)| child.num).collect();
        let hidden = u32::try_from(rows.len() - nums.len()).unwrap_or(u32::MAX);
        let replies = self.load(&nums[..nums.len().min(REPLIES)]).await?;
        let Some(latest) = self.visible(&actor.user, replies).await?.into_iter().next() else {
            return Ok(None);
        };
        let latest = self.render(actor, &[latest], Form::Full, Bundle::WithoutThreads).await?;
        let participated = self.takes_part(&actor.user, root).await?;
        Ok(Some(json!({
            "latest_event": latest.first(),
            "count": count.saturating_sub(hidden),
            "current_user_participated": participated,
        })))
    }

    /// Whether a user began a thread or answered in it.
    pub(crate) async fn takes_part(&self, user: &UserId, root: &Event) -> Result<bool> {
        if root.pdu.sender() == user {
            return Ok(true);
        }
        let parent = (root.pdu.event_id(), KINDS[2]);
        let rows = self.reader.related(self.nid, parent, Direction::Backward, None, PARTICIPANTS).await?;
        Ok(rows.iter().any(|(_, child)| child.sender == user))
    }
}

/// An edit that is not encrypted must bring the new content.
fn has_content(edit: &Event) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        new_content: Option<serde::de::IgnoredAny>,
    }
    edit.pdu.kind().to_string() == "m.room.encrypted"
        || edit.pdu.content_as::<Content>().is_some_and(|content| content.new_content.is_some())
}
