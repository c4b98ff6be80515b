//! Unread counts, worked out by the reader and remembered: sending loops over nobody.

use std::{collections::BTreeMap, sync::Arc};

use chappe_rooms::{Event, View};
use chappe_rules::{
    Pdu,
    power::Power,
    push::{Counts, CountsByThread, Setting, Subject, evaluate},
};
use chappe_store::{EventNum, Membership, Position, RoomNid};
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedUserId, UserId, events::StateEventType, push::Ruleset};
use serde::Deserialize;

use crate::{Delivery, Error};

/// Counts of a room for one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// All of the room.
    pub total: Counts,
    /// The main timeline alone.
    pub main: Counts,
    /// Threads with something unread, by root.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

/// Counts worked out before.
pub(crate) struct Memo(Cache<(OwnedUserId, RoomNid), Arc<Counted>>);

impl Default for Memo {
    fn default() -> Self {
        Self(Cache::new(100_000))
    }
}

/// Counts up to a place of the timeline.
struct Counted {
    /// Counted up to this commit.
    position: Position,
    /// Next ordinal to look at.
    next: i64,
    /// What the counts depend on beside the events: the newest own receipt and the newest account data.
    basis: Basis,
    counts: CountsByThread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    receipts: Position,
    rules: u64,
}

/// Up to where a user has read.
struct Read {
    everywhere: i64,
    main: i64,
    threads: BTreeMap<String, i64>,
    newest: Position,
}

impl Read {
    fn covers(&self, ordinal: i64, thread: Option<&OwnedEventId>) -> bool {
        let own = match thread {
            None => Some(&self.main),
            Some(root) => self.threads.get(root.as_str()),
        };
        ordinal <= self.everywhere || own.is_some_and(|read| ordinal <= *read)
    }
}

/// Whose counts, where.
pub(crate) struct Reading<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) view: &'a View<'a>,
    pub(crate) rules: &'a Ruleset,
    /// Changes with the rules.
    pub(crate) rules_mark: u64,
}

impl Delivery {
    /// The unread counts of a joined room.
    pub(crate) async fn unread(&self, reading: &Reading<'_>) -> Result<Unread, Error> {
        let key = (reading.user.to_owned(), reading.view.nid);
        let known = self.0.unread.0.get(&key);
        let end = reading.view.head.next_live;
        let newest = newest_receipt(reading).await?;
        let basis = Basis { receipts: newest, rules: reading.rules_mark };
        if let Some(known) = known.as_ref().filter(|known| known.basis == basis && known.next == end) {
            return Ok(unread(&known.counts));
        }
        let mut counts = CountsByThread::new();
        let mut from = None;
        if let Some(known) = known.filter(|known| known.basis == basis) {
            from = Some(known.next);
            counts.clone_from(&known.counts);
        }
        let read = self.read_up_to(reading).await?;
        let limit = i64::try_from(self.0.config.unread_limit).unwrap_or(i64::MAX);
        let start = from.unwrap_or_else(|| read.oldest_unread().max(end.saturating_sub(limit)).max(1));
        if !self.count(reading, &read, (start, end), &mut counts).await? && from.is_some() {
            // A redaction took something away that was counted: count again.
            counts.clear();
            let start = read.oldest_unread().max(end.saturating_sub(limit)).max(1);
            self.count(reading, &read, (start, end), &mut counts).await?;
        }
        let answer = unread(&counts);
        let counted = Counted { position: reading.view.reader.position(), next: end, basis, counts };
        let newer = self.0.unread.0.get(&key).is_none_or(|other| other.position <= counted.position);
        if newer {
            self.0.unread.0.insert(key, Arc::new(counted));
        }
        Ok(answer)
    }

    /// Counts the events from one ordinal to another. `false` when a redaction was among them.
    async fn count(
        &self,
        reading: &Reading<'_>,
        read: &Read,
        (start, end): (i64, i64),
        counts: &mut CountsByThread,
    ) -> Result<bool, Error> {
        let length = usize::try_from(end - start).unwrap_or(0);
        if length == 0 {
            return Ok(true);
        }
        let rows = reading.view.reader.timeline_forward(reading.view.nid, start, length).await?;
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        let found = reading.view.load(&nums).await?;
        let context = context(reading).await?;
        let mut intact = true;
        for (row, event) in rows.iter().zip(&found) {
            intact &= event.pdu.redacts().is_none();
            let thread = thread_of(&event.pdu);
            if !read.covers(row.ordinal, thread.as_ref()) && matters(event, reading.user) {
                let subject = event.kept(Subject::new);
                let setting = Setting {
                    room_id: &reading.view.room_id,
                    joined: reading.view.head.joined.into(),
                    power: context.power.as_ref(),
                    user: reading.user,
                    display_name: &context.display_name,
                };
                counts.entry(thread).or_default().add(&evaluate(reading.rules, &subject, &setting));
            }
        }
        counts.retain(|_, counts| *counts != Counts::default());
        Ok(intact)
    }

    async fn read_up_to(&self, reading: &Reading<'_>) -> Result<Read, Error> {
        let receipts = reading.view.reader.user_receipts(reading.view.nid, reading.user).await?;
        let ids: Vec<&ruma::EventId> = receipts.iter().map(|(_, at)| &*at.value.event.0).collect();
        let nums = reading.view.reader.event_nums(reading.view.nid, &ids).await?;
        let mut read = Read { everywhere: 0, main: 0, threads: BTreeMap::new(), newest: Position(0) };
        for ((key, at), num) in receipts.iter().zip(nums) {
            read.newest = read.newest.max(at.position);
            let Some(num) = num else { continue };
            let Some(ordinal) = reading.view.reader.event_meta(reading.view.nid, num).await?.ordinal else {
                continue;
            };
            let place = match key.thread.as_str() {
                "" => &mut read.everywhere,
                "main" => &mut read.main,
                root => read.threads.entry(root.to_owned()).or_default(),
            };
            *place = (*place).max(ordinal);
        }
        if read.everywhere == 0 {
            // What was said before one came is not unread.
            read.everywhere = self.joined_at(reading).await?;
        }
        Ok(read)
    }

    async fn joined_at(&self, reading: &Reading<'_>) -> Result<i64, Error> {
        let Some(own) = reading.view.reader.user_room(reading.user, reading.view.nid).await? else {
            return Ok(0);
        };
        if own.value.membership != Membership::Join {
            return Ok(0);
        }
        Ok(reading.view.reader.event_meta(reading.view.nid, own.value.num).await?.ordinal.unwrap_or(0))
    }
}

struct Context {
    power: Option<Power>,
    display_name: String,
}

/// What push rules may ask about the room and the user, as of now.
async fn context(reading: &Reading<'_>) -> Result<Context, Error> {
    #[derive(Deserialize)]
    struct Named {
        displayname: Option<String>,
    }
    let view = reading.view;
    let levels = view.current(StateEventType::RoomPowerLevels, "").await?;
    let create = view.current(StateEventType::RoomCreate, "").await?;
    let rules = chappe_rules::version::rules(&view.head.version);
    let power = create
        .zip(rules)
        .map(|(create, rules)| Power::new(rules, &create.pdu, levels.as_ref().map(|levels| &levels.pdu)));
    let member = view.current(StateEventType::RoomMember, reading.user.as_str()).await?;
    let named = member.and_then(|member| member.pdu.content_as::<Named>());
    Ok(Context { power, display_name: named.and_then(|named| named.displayname).unwrap_or_default() })
}

impl Read {
    fn oldest_unread(&self) -> i64 {
        self.everywhere + 1
    }
}

async fn newest_receipt(reading: &Reading<'_>) -> Result<Position, Error> {
    let receipts = reading.view.reader.user_receipts(reading.view.nid, reading.user).await?;
    Ok(receipts.iter().map(|(_, at)| at.position).max().unwrap_or_default())
}

fn unread(counts: &CountsByThread) -> Unread {
    let mut unread = Unread::default();
    for (thread, counts) in counts {
        unread.total.notifications += counts.notifications;
        unread.total.highlights += counts.highlights;
        match thread {
            None => unread.main = *counts,
            Some(root) => {
                unread.threads.insert(root.clone(), *counts);
            }
        }
    }
    unread
}

/// Redacted events and one's own draw nobody's attention.
fn matters(event: &Event, user: &UserId) -> bool {
    !event.is_redacted() && event.pdu.sender() != user
}

/// The thread an event belongs to: its root.
pub(crate) fn thread_of(event: &Pdu) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relation: Option<Relation>,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: Option<String>,
        event_id: Option<OwnedEventId>,
    }
    let relation = event.content_as::<Content>()?.relation?;
    relation.event_id.filter(|_| relation.rel_type.as_deref() == Some("m.thread"))
}
