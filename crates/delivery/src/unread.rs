//! Unread counts, worked out by the reader and remembered: sending loops over nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_rooms::{Event, View};
use chappe_rules::{
    Pdu,
    power::Power,
    push::{Attention, Counts, CountsByThread, Setting, Subject, THREAD_SUBSCRIPTION, evaluate},
    visibility::membership,
};
use chappe_store::{EventNum, Membership, Position, RoomNid};
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{
    Delivery, Error,
    signal::{Settings, Signal},
    tail::Tail,
};

/// Events looked at together for one that is unread.
const PAGE: usize = 100;
/// Counts remembered, as one expects them, and bytes of all together.
const MEMO: usize = 400_000;
const MEMO_BYTES: u64 = 256 << 20;
/// Membership events of which it is remembered where they brought their users in.
const ENTRIES: usize = 200_000;
/// Changes of a user's own profile followed back to where they came in; with more, what was said before the oldest of
/// these counts as read.
const CHANGES: usize = 50;
/// Threads in one node of a map, as a rule, and the bytes of such a node.
const NODE_THREADS: usize = 6;
const NODE_BYTES: usize = 500;

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

/// Whose counts, where.
type Pair = (OwnedUserId, RoomNid);

/// What was worked out before.
pub(crate) struct Memo {
    /// Counts of users who sync: those of 30,000 people in a dozen rooms each.
    counts: Cache<Pair, Arc<Counted>, BySize>,
    /// Where users came into rooms, by their membership events.
    entries: Cache<(RoomNid, EventNum), i64>,
}

impl Default for Memo {
    fn default() -> Self {
        Self { counts: Cache::with_weighter(MEMO, MEMO_BYTES, BySize), entries: Cache::new(ENTRIES) }
    }
}

/// Weighs counts by about the bytes that they take up.
#[derive(Clone)]
struct BySize;

impl Weighter<Pair, Arc<Counted>> for BySize {
    fn weight(&self, (user, _): &Pair, counted: &Arc<Counted>) -> u64 {
        let threads = counted.tally.counts.len() + counted.read.threads.len();
        let fixed = size_of::<Pair>() + size_of::<Counted>() + size_of::<Read>() + user.as_str().len();
        u64::try_from(fixed + threads.div_ceil(NODE_THREADS) * NODE_BYTES).unwrap_or(u64::MAX)
    }
}

/// Counts up to a place of the timeline.
struct Counted {
    /// Counted up to this commit.
    position: Position,
    /// Next ordinal to look at.
    next: i64,
    /// Which settings they were counted with.
    mark: u64,
    /// What was read then.
    read: Arc<Read>,
    tally: Tally,
}

/// What was counted.
#[derive(Clone)]
struct Tally {
    counts: CountsByThread,
    /// When the oldest of it was said, in milliseconds since 1970: rooms keep it only for so long.
    oldest: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: CountsByThread::new(), oldest: u64::MAX }
    }
}

/// Up to where a user has read.
#[derive(PartialEq, Eq)]
pub(crate) struct Read {
    everywhere: i64,
    main: i64,
    threads: BTreeMap<String, i64>,
}

impl Read {
    /// Whether an event of the main timeline, or of the thread with that root, has been read.
    pub(crate) fn covers(&self, ordinal: i64, thread: Option<&OwnedEventId>) -> bool {
        let own = match thread {
            None => Some(&self.main),
            Some(root) => self.threads.get(root.as_str()),
        };
        ordinal <= self.everywhere || own.is_some_and(|read| ordinal <= *read)
    }
}

/// Who reads, and what.
pub(crate) struct Reading<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) view: &'a View<'a>,
    pub(crate) tail: &'a Tail,
    pub(crate) settings: &'a Settings,
    /// The user, if attached: knows whether they have read on.
    pub(crate) signal: Option<&'a Signal>,
}

impl Reading<'_> {
    fn may_have_read(&self, after: Position) -> bool {
        self.signal.is_none_or(|signal| signal.has_read(self.view.nid, after))
    }
}

impl Delivery {
    /// The unread counts of a joined room.
    pub(crate) async fn unread(&self, reading: &Reading<'_>) -> Result<Unread, Error> {
        let key = (reading.user.to_owned(), reading.view.nid);
        let end = reading.view.head.next_live;
        let known = self.0.unread.counts.get(&key).filter(|known| known.mark == reading.settings.mark);
        let mut read = match &known {
            Some(known) if !reading.may_have_read(known.position) => known.read.clone(),
            _ => Arc::new(self.read_up_to(reading).await?),
        };
        let kept = |known: &Counted| reading.view.keeps(known.tally.oldest);
        let known = known.filter(|known| known.read == read && known.next <= end && kept(known));
        if let Some(known) = known.as_ref().filter(|known| known.next == end) {
            return Ok(unread(&known.tally.counts));
        }
        let mut tally = known.as_ref().map(|known| known.tally.clone()).unwrap_or_default();
        let is_counted = match &known {
            Some(known) => count(reading, &read, (known.next, end), &mut tally).await?,
            None => false,
        };
        if !is_counted {
            // Never counted, or a redaction took something away that was counted, or the user left and came back.
            if known.is_some() {
                read = Arc::new(self.read_up_to(reading).await?);
            }
            tally = Tally::default();
            let beginning = self.beginning(reading, &read, end).await?;
            count(reading, &read, (beginning, end), &mut tally).await?;
        }
        let answer = unread(&tally.counts);
        let position = reading.view.reader.position();
        if self.0.unread.counts.get(&key).is_none_or(|other| other.position <= position) {
            let counted = Counted { position, next: end, mark: reading.settings.mark, read, tally };
            self.0.unread.counts.insert(key, Arc::new(counted));
        }
        Ok(answer)
    }

    /// Whether anything in a joined room is unread, among so many of the newest events: looked for from the end, and not
    /// counted.
    pub(crate) async fn has_unread(&self, reading: &Reading<'_>) -> Result<bool, Error> {
        let (view, read) = (reading.view, self.read_up_to(reading).await?);
        let judge = Judge::new(reading, &read).await?;
        let (mut left, mut answered) = (self.0.config.get().unread_limit, BTreeSet::new());
        let (mut rows, mut events) = reading.tail.back(view.head.next_live);
        loop {
            for (row, event) in rows.iter().zip(&events) {
                if left == 0 || row.ordinal < read.oldest_unread() {
                    return Ok(false);
                }
                left -= 1;
                match judge.look(row.ordinal, event).await? {
                    Some(Found::Unread(thread, _)) if !answered.contains(&thread) => return Ok(true),
                    Some(Found::Answer(thread)) => {
                        answered.insert(thread);
                    }
                    _ => {}
                }
            }
            let Some(oldest) = rows.last() else { return Ok(false) };
            rows = view.reader.timeline_back(view.nid, oldest.ordinal, PAGE).await?;
            let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
            events = view.load(&nums).await?;
        }
    }

    /// The place from which on it is counted: that of the oldest unread event, among so many of the newest.
    async fn beginning(&self, reading: &Reading<'_>, read: &Read, end: i64) -> Result<i64, Error> {
        let (oldest, limit) = (read.oldest_unread(), self.0.config.get().unread_limit);
        if i64::try_from(limit).is_ok_and(|limit| end.saturating_sub(oldest) <= limit) {
            return Ok(oldest);
        }
        // Places are not events: some are kept free for what is missing.
        let rows = reading.view.reader.timeline_back(reading.view.nid, end, limit).await?;
        Ok(rows.last().map_or(end, |row| row.ordinal.max(oldest)))
    }

    pub(crate) async fn read_up_to(&self, reading: &Reading<'_>) -> Result<Read, Error> {
        let receipts = reading.view.reader.user_receipts(reading.view.nid, reading.user).await?;
        let ids: Vec<&ruma::EventId> = receipts.iter().map(|(_, at)| &*at.value.event.0).collect();
        let nums = reading.view.reader.event_nums(reading.view.nid, &ids).await?;
        let mut read = Read { everywhere: 0, main: 0, threads: BTreeMap::new() };
        for ((key, _), num) in receipts.iter().zip(nums) {
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
        // What was said before one came is not unread, also to whoever has come back.
        let own = reading.view.reader.user_room(reading.user, reading.view.nid).await?;
        if let Some(own) = own.filter(|own| own.value.membership == Membership::Join) {
            let entered = self.entered_at(reading, own.value.num, read.everywhere).await?;
            read.everywhere = read.everywhere.max(entered);
        }
        Ok(read)
    }

    /// Where a user came into a room: from their membership event, changes of their profile are followed back, but not behind
    /// what is read.
    async fn entered_at(&self, reading: &Reading<'_>, num: EventNum, read: i64) -> Result<i64, Error> {
        let (view, entries) = (reading.view, &self.0.unread.entries);
        let key = (view.nid, num);
        if let Some(known) = entries.get(&key) {
            return Ok(known);
        }
        let mut meta = view.reader.event_meta(view.nid, num).await?;
        for _ in 0..CHANGES {
            if meta.ordinal.is_some_and(|ordinal| ordinal <= read) {
                break;
            }
            let own = StateEventType::RoomMember;
            let before = match view.state_event_at(meta.before, own, reading.user.as_str()).await {
                // It was purged.
                Err(chappe_rooms::Error::NotFound(_)) => None,
                before => before?,
            };
            let joined = before.filter(|event| membership(Some(&event.pdu)) == MembershipState::Join);
            let Some(joined) = joined else { break };
            meta = joined.meta;
        }
        // What was filled in behind the beginning of the room here is nobody's news, wherever they came in.
        let ordinal = meta.ordinal.unwrap_or(0).max(0);
        entries.insert(key, ordinal);
        Ok(ordinal)
    }
}

/// The root of a thread; none: the main timeline.
type Thread = Option<OwnedEventId>;

/// What an event is for the counts of a user.
enum Found {
    /// It is unread, and asks for so much.
    Unread(Thread, Attention),
    /// The user has said it: whatever came before it in the thread is read.
    Answer(Thread),
}

/// Judges events of a room for a user.
struct Judge<'a> {
    reading: &'a Reading<'a>,
    read: &'a Read,
    power: Option<&'a Power>,
    name: String,
}

impl<'a> Judge<'a> {
    async fn new(reading: &'a Reading<'a>, read: &'a Read) -> Result<Self, Error> {
        let (power, name) = (reading.tail.power(reading.view).await?, display_name(reading).await?);
        Ok(Self { reading, read, power, name })
    }

    /// What an event is; none where it makes no difference.
    async fn look(&self, ordinal: i64, event: &Event) -> Result<Option<Found>, Error> {
        let reading = self.reading;
        if ordinal <= self.read.everywhere {
            return Ok(None);
        }
        if is_answer(event, reading.user) {
            return Ok(Some(Found::Answer(thread_of(reading.view, event).await?)));
        }
        if !matters(event, reading) {
            return Ok(None);
        }
        let setting = Setting {
            room_id: &reading.view.room_id,
            joined: reading.view.head.joined.into(),
            power: self.power,
            user: reading.user,
            display_name: &self.name,
            follows: follows(reading, &event.pdu).await?,
        };
        let attention = evaluate(&reading.settings.rules, &event.kept(Subject::new), &setting);
        if !attention.notify {
            return Ok(None);
        }
        // Nobody can read what they do not see.
        if !reading.view.member_sees(reading.user, event).await? {
            return Ok(None);
        }
        let thread = thread_of(reading.view, event).await?;
        Ok((!self.read.covers(ordinal, thread.as_ref())).then_some(Found::Unread(thread, attention)))
    }
}

/// Counts the events from one ordinal to another. `false` when there was a redaction among them, or a membership of the
/// user.
async fn count(
    reading: &Reading<'_>,
    read: &Read,
    (start, end): (i64, i64),
    tally: &mut Tally,
) -> Result<bool, Error> {
    if start >= end {
        return Ok(true);
    }
    let judge = Judge::new(reading, read).await?;
    let loaded = match reading.tail.between(start, end) {
        Some(events) => events.map(|(row, event)| (row.ordinal, event.clone())).collect(),
        None => load(reading.view, start, end).await?,
    };
    let mut intact = true;
    for (ordinal, event) in &loaded {
        intact &= event.pdu.redacts().is_none() && !is_own_membership(event, reading.user);
        match judge.look(*ordinal, event).await? {
            Some(Found::Unread(thread, attention)) => {
                tally.counts.entry(thread).or_default().add(&attention);
                tally.oldest = tally.oldest.min(event.said_at());
            }
            Some(Found::Answer(thread)) => {
                tally.counts.remove(&thread);
            }
            None => {}
        }
    }
    Ok(intact)
}

/// The events from one ordinal to another, with their ordinals.
async fn load(view: &View<'_>, start: i64, end: i64) -> Result<Vec<(i64, Event)>, Error> {
    let length = usize::try_from(end - start).unwrap_or(0);
    let rows = view.reader.timeline_forward(view.nid, start, length).await?;
    let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
    Ok(rows.iter().map(|row| row.ordinal).zip(view.load(&nums).await?).collect())
}

/// The user's name in the room, if their rules ask for it.
pub(crate) async fn display_name(reading: &Reading<'_>) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Named {
        displayname: Option<String>,
    }
    if !reading.settings.rules.ask_for("contains_display_name") {
        return Ok(String::new());
    }
    let member = reading.view.current(StateEventType::RoomMember, reading.user.as_str()).await?;
    let named = member.and_then(|member| member.pdu.content_as::<Named>());
    Ok(named.and_then(|named| named.displayname).unwrap_or_default())
}

/// Whether the user follows the thread that an event is in, if their rules ask for it; none if it is in no thread.
///
/// Specification: MSC4306.
pub(crate) async fn follows(reading: &Reading<'_>, event: &Pdu) -> Result<Option<bool>, Error> {
    let asks = reading.settings.rules.ask_for(THREAD_SUBSCRIPTION);
    let thread = event.relation().filter(|(kind, _)| asks && kind == "m.thread");
    let Some((_, root)) = thread else { return Ok(None) };
    let found = reading.view.reader.thread_subscription(reading.user, reading.view.nid, &root).await?;
    Ok(Some(found.is_some_and(|found| found.value.subscribed)))
}

impl Read {
    fn oldest_unread(&self) -> i64 {
        self.everywhere + 1
    }
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

/// Redacted events, expired ones, one's own and those of ignored users draw nobody's attention.
pub(crate) fn matters(event: &Event, reading: &Reading<'_>) -> bool {
    let sender = event.pdu.sender();
    let is_there = !event.is_redacted() && !reading.view.has_expired(event);
    is_there && sender != reading.user && !reading.settings.ignored.contains(sender)
}

fn is_own_membership(event: &Event, user: &UserId) -> bool {
    *event.pdu.kind() == TimelineEventType::RoomMember && event.pdu.state_key() == Some(user.as_str())
}

/// Whether by saying this a user shows that they have read what came before it. Whoever changes the state of the room or
/// takes something back need not have looked, nor is it known of what was taken back in which thread it was.
///
/// Specification: client-server API, "Marking notifications as read".
pub(crate) fn is_answer(event: &Event, user: &UserId) -> bool {
    let is_said = event.pdu.state_key().is_none() && *event.pdu.kind() != TimelineEventType::RoomRedaction;
    is_said && event.pdu.sender() == user && !event.is_redacted()
}

/// How far relations are followed to find the thread of an event.
const STEPS: usize = 3;

/// The thread an event belongs to: its root. What relates in another way to an event of a thread belongs there too.
pub(crate) async fn thread_of(view: &View<'_>, event: &Event) -> Result<Option<OwnedEventId>, Error> {
    let mut relation = event.pdu.relation();
    for _ in 0..STEPS {
        let Some((kind, target)) = relation else { return Ok(None) };
        if kind == "m.thread" {
            return Ok(Some(target));
        }
        let Some(num) = view.reader.event_num(view.nid, &target).await? else { return Ok(None) };
        relation = match view.load_one(num).await {
            // It was purged, and what it belonged to with it.
            Err(chappe_rooms::Error::NotFound(_)) => return Ok(None),
            event => event?.pdu.relation(),
        };
    }
    Ok(None)
}
