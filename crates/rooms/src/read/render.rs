//! Events in the form clients get them: the part that is the same for everybody is rendered once and kept with the
//! event, the rest is spliced in.

use chappe_rules::client::{self, Form, Unsigned};
use chappe_store::{
    EventNum,
    state::{StateChanges, StateKey},
};
use ruma::{OwnedTransactionId, events::room::member::MembershipState};
use serde_json::value::RawValue;

use crate::{
    Actor, Error, Result,
    read::{
        bundle::{Bundles, KINDS},
        view::Event,
        view::View,
    },
    visible::Seen,
};

/// The common client form without its closing brace.
struct Common(Box<str>);

/// The same of a redacted event.
struct CommonRedacted(Box<str>);

/// Whether events come with bundled aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bundle {
    /// Threads, edits and references.
    All,
    /// Edits and references: inside a thread summary.
    WithoutThreads,
    /// Nothing.
    None,
}

fn common_of(event: &Event) -> Box<str> {
    let rendered = client::render(&event.pdu, Form::Sync, &Unsigned::default());
    let text = rendered.get();
    text.strip_suffix('}').unwrap_or(text).into()
}

impl Event {
    /// This event for a client, with what `unsigned` says.
    pub fn for_client(&self, form: Form, unsigned: &Unsigned) -> Result<Box<RawValue>> {
        if form == Form::Federation {
            return Ok(client::render(&self.pdu, form, unsigned));
        }
        let broken = |_| Error::from(chappe_store::Error::Corrupt("event JSON"));
        if self.is_redacted() {
            let common = self.stored.form(|_| Ok::<_, Error>(CommonRedacted(common_of(self))))?;
            splice(&common.0, self, form, unsigned).map_err(broken)
        } else {
            let common = self.stored.form(|_| Ok::<_, Error>(Common(common_of(self))))?;
            splice(&common.0, self, form, unsigned).map_err(broken)
        }
    }
}

/// Whether whoever sees an event was not in the room then.
fn is_outside(seen: &Seen) -> bool {
    seen.membership != MembershipState::Join
}

fn splice(
    common: &str,
    event: &Event,
    form: Form,
    unsigned: &Unsigned,
) -> Result<Box<RawValue>, serde_json::Error> {
    let mut text = String::with_capacity(common.len() + 200);
    text.push_str(common);
    if form == Form::Full {
        text.push_str(",\"room_id\":");
        text.push_str(&serde_json::to_string(event.pdu.room_id())?);
    }
    if !unsigned.is_empty() {
        text.push_str(",\"unsigned\":");
        text.push_str(&serde_json::to_string(unsigned)?);
    }
    text.push('}');
    RawValue::from_string(text)
}

impl View<'_> {
    /// Events for a client, each with all of its `unsigned`. A few round trips for the lot.
    pub async fn render(
        &self,
        actor: &Actor,
        events: &[Seen],
        form: Form,
        bundle: Bundle,
    ) -> Result<Vec<Box<RawValue>>> {
        let mut unsigned = self.unsigned_of(actor, events).await?;
        if bundle != Bundle::None {
            let bundles: Vec<Bundles> = Box::pin(self.bundles(actor, events, bundle)).await?;
            for (unsigned, relations) in unsigned.iter_mut().zip(bundles) {
                unsigned.relations = relations;
            }
        }
        events.iter().zip(unsigned).map(|(seen, unsigned)| seen.event.for_client(form, &unsigned)).collect()
    }

    /// The client forms of events, for [`Form::Sync`], as everybody gets them who is joined and did not send them: up to
    /// the inside of `unsigned`, to be closed with the age. `None` for those with bundled aggregations, which depend on
    /// who asks.
    pub async fn render_shared(&self, events: &[Seen]) -> Result<Vec<Option<Box<str>>>> {
        let ids: Vec<_> = events.iter().map(|seen| seen.event.pdu.event_id()).collect();
        let counts = self.reader.relation_counts(self.nid, &ids, &KINDS).await?;
        let mut all: Vec<Unsigned> = events
            .iter()
            .map(|seen| Unsigned { membership: Some(seen.membership.clone()), ..Unsigned::default() })
            .collect();
        self.add_replaced(events, &mut all).await?;
        self.add_redactions(events, &mut all).await?;
        let render = |((seen, unsigned), counts): ((&Seen, &Unsigned), &Vec<u32>)| {
            // What is left of a sticky event's time is said anew each time.
            let sticky = seen.event.pdu.sticky_ms().is_some();
            if sticky || counts.iter().any(|count| *count > 0) {
                return Ok(None);
            }
            let rendered = seen.event.for_client(Form::Sync, unsigned)?;
            let text: Option<Box<str>> = rendered.get().strip_suffix("}}").map(Into::into);
            Ok::<_, Error>(text)
        };
        events.iter().zip(&all).zip(&counts).map(render).collect()
    }

    /// Events in full as an application service is told them: for nobody in particular, with their age and what they
    /// replaced or were redacted by.
    pub async fn render_for_service(&self, events: Vec<Event>) -> Result<Vec<Box<RawValue>>> {
        let seen = self.told_to_all(events).await?;
        let aged = |seen: &Seen| Unsigned { age: Some(self.age(&seen.event)), ..Unsigned::default() };
        let mut all: Vec<Unsigned> = seen.iter().map(aged).collect();
        self.add_replaced(&seen, &mut all).await?;
        self.add_redactions(&seen, &mut all).await?;
        seen.iter().zip(all).map(|(seen, unsigned)| seen.event.for_client(Form::Full, &unsigned)).collect()
    }

    /// State events for a client who may see them as state, with their age.
    pub fn render_state(&self, events: &[Event], form: Form) -> Result<Vec<Box<RawValue>>> {
        events.iter().map(|event| self.render_one(event, form)).collect()
    }

    /// One of them.
    pub(crate) fn render_one(&self, event: &Event, form: Form) -> Result<Box<RawValue>> {
        event.for_client(form, &Unsigned { age: Some(self.age(event)), ..Unsigned::default() })
    }

    pub(crate) fn age(&self, event: &Event) -> u64 {
        self.inner.world.now().saturating_sub(u64::from(event.pdu.origin_server_ts().0))
    }

    async fn unsigned_of(&self, actor: &Actor, events: &[Seen]) -> Result<Vec<Unsigned>> {
        let mut all = Vec::with_capacity(events.len());
        for seen in events {
            let membership = Some(seen.membership.clone());
            all.push(Unsigned { age: Some(self.age(&seen.event)), membership, ..Unsigned::default() });
        }
        self.add_transactions(actor, events, &mut all).await?;
        let sent: Vec<&Event> = events.iter().map(|seen| &seen.event).collect();
        self.add_sticky_times(&sent, &mut all).await?;
        self.add_replaced(events, &mut all).await?;
        self.add_redactions(events, &mut all).await?;
        Ok(all)
    }

    async fn add_transactions(&self, actor: &Actor, events: &[Seen], all: &mut [Unsigned]) -> Result<()> {
        let own: Vec<usize> =
            (0..events.len()).filter(|&i| events[i].event.pdu.sender() == actor.user).collect();
        if own.is_empty() {
            return Ok(());
        }
        let nums: Vec<_> = own.iter().map(|&i| events[i].event.num).collect();
        let found = self.reader.event_origins(self.nid, &nums).await?;
        for (i, (sent, delayed)) in own.into_iter().zip(found) {
            let sent = sent.filter(|sent| actor.device.as_ref() == Some(&sent.device));
            all[i].transaction_id = sent.map(|sent| OwnedTransactionId::from(sent.txn));
            all[i].delay_id = delayed;
        }
        Ok(())
    }

    /// What each state event replaced: one look at the rows of the changes they made.
    async fn add_replaced(&self, events: &[Seen], all: &mut [Unsigned]) -> Result<()> {
        let is_state = |seen: &Seen| seen.event.pdu.state_key().is_some();
        let changing: Vec<usize> = (0..events.len()).filter(|&i| is_state(&events[i])).collect();
        if changing.is_empty() {
            return Ok(());
        }
        let row = |&i: &usize| {
            let after = events[i].event.meta.after;
            (self.nid, after.line, after.version, 0)
        };
        let keys: Vec<_> = changing.iter().map(row).collect();
        let rows = self.reader.get_many::<StateChanges>(&keys).await?;
        for (i, row) in changing.into_iter().zip(rows) {
            let event = &events[i].event;
            let old = match row.as_deref() {
                Some([only]) if only.new == event.num => only.old.some(),
                _ => self.replaced_by_state(event).await?,
            };
            let Some(old) = old.filter(|old| *old != event.num) else { continue };
            let mut old = self.load_one(old).await?;
            if is_outside(&events[i]) {
                self.veil(vec![&mut old]).await?;
            }
            all[i].prev_content = Some(old.pdu.content().to_owned());
            all[i].replaces_state = Some(old.pdu.event_id().to_owned());
            all[i].prev_sender = Some(old.pdu.sender().to_owned());
        }
        Ok(())
    }

    async fn replaced_by_state(&self, event: &Event) -> Result<Option<EventNum>> {
        let Some((kind, key)) = event.pdu.state() else { return Ok(None) };
        Ok(self.reader.state_event_at(self.nid, event.meta.before, &StateKey::new(kind, key)).await?)
    }

    async fn add_redactions(&self, events: &[Seen], all: &mut [Unsigned]) -> Result<()> {
        let by = |i: usize| events[i].event.meta.redacted_by.some();
        let redacted: Vec<usize> = (0..events.len()).filter(|&i| by(i).is_some()).collect();
        let nums: Vec<EventNum> = redacted.iter().filter_map(|&i| by(i)).collect();
        if nums.is_empty() {
            return Ok(());
        }
        let mut redactions = self.load(&nums).await?;
        let told = redactions.iter_mut().zip(&redacted).filter(|(_, i)| is_outside(&events[**i]));
        self.veil(told.map(|(redaction, _)| redaction).collect()).await?;
        for (i, redaction) in redacted.into_iter().zip(redactions) {
            let redaction = self.without_expired(redaction)?;
            let unsigned = Unsigned { age: Some(self.age(&redaction)), ..Unsigned::default() };
            all[i].redacted_because = Some(redaction.for_client(Form::Full, &unsigned)?);
        }
        Ok(())
    }
}
