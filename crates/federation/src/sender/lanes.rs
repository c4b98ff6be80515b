//! Which destinations are being served, which are waited for until when, and what is in memory for each.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chappe_store::{Index, Position, outbox::OutboxKey};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::fleeting::{Fleeting, ReceiptPlace, Receipts};

/// A destination that does not take what is due for so long holds up nobody: what is gathered for it then is lost if this
/// server stops.
const OVERDUE: Duration = Duration::from_mins(1);

#[derive(Default)]
pub(super) struct Lanes {
    state: Mutex<State>,
    timetable_changed: Notify,
}

#[derive(Default)]
struct State {
    lanes: HashMap<OwnedServerName, Lane>,
    /// `(time, destination)`, one for each lane that waits or gathers; the time is one of the steady clock, which nobody sets.
    timetable: BTreeSet<(Instant, OwnedServerName)>,
}

#[derive(Default)]
struct Lane {
    activity: Activity,
    /// Since when nothing may be sent there, in milliseconds since 1970.
    off_since: Option<u64>,
    /// Since when that is so though it is known who is let in.
    out_since: Option<u64>,
    length: Length,
    fleeting: Fleeting,
    /// When what is in memory goes by itself, if no transaction has taken it along before.
    due: Option<Instant>,
    /// The commit of the oldest receipt that was gathered and not taken yet.
    since: Option<Position>,
}

/// How long a queue is, as far as it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Length {
    /// The rows that were counted and are still there.
    pub(super) rows: usize,
    /// Position and index of the last row that was counted: new ones come behind it.
    pub(super) to: (u64, Index),
    /// As many of them were left when the queue was shortened last.
    pub(super) left: usize,
}

/// How long what is added may wait for more, or for a transaction that takes it along.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) now: Instant,
    pub(super) wait: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Resting,
    /// What is in memory waits for more, or for something that does not wait.
    Gathering {
        until: Instant,
    },
    /// A task is at it; `again` when something came meanwhile.
    Serving {
        again: bool,
    },
    Waiting {
        until: Instant,
    },
}

impl Lanes {
    /// Something new waits. Gives whether the caller has to begin a worker.
    pub(super) fn wake(&self, destination: &ServerName) -> bool {
        let mut state = self.state.lock();
        let State { lanes, timetable } = &mut *state;
        let lane = lanes.entry(destination.to_owned()).or_default();
        match lane.activity {
            Activity::Serving { .. } => {
                lane.activity = Activity::Serving { again: true };
                return false;
            }
            Activity::Waiting { .. } => return false,
            Activity::Gathering { until } => {
                timetable.remove(&(until, destination.to_owned()));
            }
            Activity::Resting => {}
        }
        lane.activity = Activity::Serving { again: false };
        true
    }

    /// The same, for a destination that need not be waited for any longer.
    pub(super) fn wake_at_once(&self, destination: &ServerName) -> bool {
        let mut state = self.state.lock();
        if let Some(lane) = state.lanes.get_mut(destination)
            && let Activity::Waiting { until } = lane.activity
        {
            lane.activity = Activity::Serving { again: false };
            state.timetable.remove(&(until, destination.to_owned()));
            return true;
        }
        drop(state);
        self.wake(destination)
    }

    /// A worker found nothing more that has to go now. Gives whether it may end.
    pub(super) fn rest(&self, destination: &ServerName, now: Instant) -> bool {
        let mut state = self.state.lock();
        let State { lanes, timetable } = &mut *state;
        let Some(lane) = lanes.get_mut(destination) else { return true };
        let gathered = !lane.fleeting.is_empty();
        if lane.activity == (Activity::Serving { again: true }) || gathered && lane.is_due(now) {
            lane.activity = Activity::Serving { again: false };
            return false;
        }
        let Some(until) = lane.due.filter(|_| gathered) else {
            lanes.remove(destination);
            return true;
        };
        lane.activity = Activity::Gathering { until };
        timetable.insert((until, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
        true
    }

    /// Nothing may be sent there. Gives since when that is so, and since when though it is known who is let in, if it `is_known`.
    pub(super) fn off_list(&self, destination: &ServerName, now: u64, is_known: bool) -> (u64, Option<u64>) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        lane.out_since = is_known.then(|| lane.out_since.unwrap_or(now));
        (*lane.off_since.get_or_insert(now), lane.out_since)
    }

    /// Something may be sent there.
    pub(super) fn on_list(&self, destination: &ServerName) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            (lane.off_since, lane.out_since) = (None, None);
        }
    }

    /// How long its queue is.
    pub(super) fn length(&self, destination: &ServerName) -> Length {
        self.state.lock().lanes.get(destination).map(|lane| lane.length).unwrap_or_default()
    }

    /// Its queue was counted.
    pub(super) fn set_length(&self, destination: &ServerName, length: Length) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.length = length;
        }
    }

    /// Rows have left its queue.
    pub(super) fn done(&self, destination: &ServerName, rows: &[OutboxKey]) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            let Length { rows: counted, to, left } = &mut lane.length;
            let done = rows.iter().filter(|(_, position, index)| (*position, *index) <= *to).count();
            *counted = counted.saturating_sub(done);
            *left = left.saturating_sub(done);
        }
    }

    /// As [`Lanes::wait`]; false if there was news meanwhile, which may be that it may be sent to.
    pub(super) fn wait_for_news(&self, destination: &ServerName, until: Instant) -> bool {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        if lane.activity == (Activity::Serving { again: true }) {
            lane.activity = Activity::Serving { again: false };
            return false;
        }
        (lane.activity, lane.since) = (Activity::Waiting { until }, None);
        state.timetable.insert((until, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
        true
    }

    /// A worker ends for now.
    pub(super) fn wait(&self, destination: &ServerName, until: Instant) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        (lane.activity, lane.since) = (Activity::Waiting { until }, None);
        state.timetable.insert((until, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
    }

    /// Takes the destinations whose time has come; their workers are to be begun.
    pub(super) fn due(&self, now: Instant) -> Vec<OwnedServerName> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while state.timetable.first().is_some_and(|(until, _)| *until <= now)
            && let Some((_, destination)) = state.timetable.pop_first()
        {
            if let Some(lane) = state.lanes.get_mut(&destination) {
                lane.activity = Activity::Serving { again: false };
            }
            due.push(destination);
        }
        due
    }

    /// When the next one's time comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state.lock().timetable.first().map(|(until, _)| *until)
    }

    /// Ready once the timetable has a new entry.
    pub(super) fn timetable_changed(&self) -> Notified<'_> {
        self.timetable_changed.notified()
    }

    pub(super) fn is_waiting(&self, destination: &ServerName) -> bool {
        self.state.lock().lanes.get(destination).is_some_and(Lane::is_waiting)
    }

    /// The destinations that are being waited for.
    pub(super) fn waiting(&self) -> Vec<OwnedServerName> {
        let state = self.state.lock();
        let all = state.timetable.iter().map(|(_, destination)| destination);
        let is_waiting =
            |destination: &&OwnedServerName| state.lanes.get(*destination).is_some_and(Lane::is_waiting);
        all.filter(is_waiting).cloned().collect()
    }

    /// Adds a receipt, set by the commit `at`, to what is in memory for a destination until it is sent or replaced.
    pub(super) fn add_receipt(
        &self,
        destination: &ServerName,
        when: When,
        (at, place, (event, ts)): (Position, ReceiptPlace, (OwnedEventId, u64)),
    ) {
        self.add(destination, when, |lane| {
            if lane.is_waiting() {
                lane.fleeting.late_receipt(place, event, ts);
            } else {
                lane.fleeting.receipt(place, event, ts);
                lane.since.get_or_insert(at);
            }
        });
    }

    /// Adds what is about this moment, unless the destination is being waited for.
    pub(super) fn add_momentary(
        &self,
        destination: &ServerName,
        when: When,
        add: impl FnOnce(&mut Fleeting),
    ) {
        self.add(destination, when, |lane| {
            if !lane.is_waiting() {
                add(&mut lane.fleeting);
            }
        });
    }

    /// It goes with the next transaction, and with one of its own if there is none in time.
    fn add(&self, destination: &ServerName, when: When, add: impl FnOnce(&mut Lane)) {
        let mut state = self.state.lock();
        let State { lanes, timetable } = &mut *state;
        let lane = lanes.entry(destination.to_owned()).or_default();
        let is_first = lane.fleeting.is_empty();
        add(lane);
        let by = if lane.fleeting.is_plenty() { when.now } else { when.now + when.wait };
        let due = lane.due.filter(|_| !is_first).map_or(by, |due| due.min(by));
        lane.due = Some(due);
        match lane.activity {
            Activity::Resting => {}
            Activity::Gathering { until } if due < until => {
                timetable.remove(&(until, destination.to_owned()));
            }
            _ => return,
        }
        lane.activity = Activity::Gathering { until: due };
        timetable.insert((due, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
    }

    /// Takes up to `limit` EDUs out of what is in memory for a destination, if that is due by `now`, if given; the receipts in
    /// them are for [`Lanes::give_back`].
    pub(super) fn take_fleeting(
        &self,
        destination: &ServerName,
        limit: usize,
        now: Option<Instant>,
    ) -> (Vec<serde_json::Value>, Receipts) {
        let mut state = self.state.lock();
        let lane = state.lanes.get_mut(destination);
        let Some(lane) = lane.filter(|lane| now.is_none_or(|now| lane.is_due(now))) else {
            return (Vec::new(), Receipts::new());
        };
        let taken = lane.fleeting.take(limit);
        if lane.fleeting.is_empty() {
            lane.since = None;
        }
        taken
    }

    /// The commit of the oldest receipt that is still gathered for a destination which is not waited for, and takes what is due.
    pub(super) fn gathered_since(&self, now: Instant) -> Option<Position> {
        let state = self.state.lock();
        let takes = |lane: &&Lane| !lane.is_waiting() && lane.due.is_none_or(|due| now < due + OVERDUE);
        state.lanes.values().filter(takes).filter_map(|lane| lane.since).min()
    }

    /// What was for the moment only is out of date by the time the destination can be sent to.
    pub(super) fn drop_momentary(&self, destination: &ServerName) {
        self.give_back(destination, Receipts::new());
    }

    /// A transaction was not taken: its receipts go with a later one, and nothing that was for the moment only.
    pub(super) fn give_back(&self, destination: &ServerName, receipts: Receipts) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.fleeting.drop_momentary();
            lane.fleeting.give_back(receipts);
        }
    }

    /// Nothing that is in memory for a destination is to be sent.
    pub(super) fn drop_fleeting(&self, destination: &ServerName) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            (lane.fleeting, lane.since) = (Fleeting::default(), None);
        }
    }
}

impl Lane {
    fn is_waiting(&self) -> bool {
        matches!(self.activity, Activity::Waiting { .. })
    }

    /// Whether what is in memory has to go now.
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, owned_room_id, owned_user_id, server_name};

    use super::*;

    #[test]
    fn one_worker_per_destination_that_misses_nothing() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let now = Instant::now();
        assert!(lanes.wake(peer));
        assert!(!lanes.wake(peer), "a second worker");
        assert!(!lanes.rest(peer, now), "what came meanwhile was missed");
        assert!(lanes.rest(peer, now));
        assert!(lanes.wake(peer));
    }

    fn type_in(lanes: &Lanes, peer: &ServerName, now: Instant, wait: u64) {
        let when = When { now, wait: Duration::from_secs(wait) };
        lanes.add_momentary(peer, when, |fleeting| {
            fleeting.typing(owned_room_id!("!r:a"), owned_user_id!("@u:a"), true);
        });
    }

    fn read_at(lanes: &Lanes, peer: &ServerName, (now, wait): (Instant, u64), at: u64) {
        let place = (owned_room_id!("!r:a"), owned_user_id!("@u:a"), format!("$t{at}"));
        let when = When { now, wait: Duration::from_secs(wait) };
        lanes.add_receipt(peer, when, (Position(at), place, (owned_event_id!("$1"), at)));
    }

    #[test]
    fn a_worker_does_not_forget_what_was_just_added() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        assert!(lanes.wake(peer));
        type_in(&lanes, peer, now, 1);
        assert!(lanes.rest(peer, now), "it is not due");
        assert_eq!(lanes.due(due), [peer], "it would be lost");
        assert!(!lanes.rest(peer, due));
        assert_eq!(lanes.take_fleeting(peer, 10, Some(due)).0.len(), 1);
        assert!(lanes.rest(peer, due));
        assert_eq!(lanes.next_due(), None);
    }

    #[test]
    fn what_can_wait_goes_at_the_latest_when_its_time_comes() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        read_at(&lanes, peer, (now, 4), 7);
        read_at(&lanes, peer, (after(2), 4), 8);
        assert_eq!((lanes.next_due(), lanes.gathered_since(now)), (Some(after(4)), Some(Position(7))));
        type_in(&lanes, peer, after(2), 1);
        assert_eq!(lanes.next_due(), Some(after(3)));
        assert!(lanes.due(after(2)).is_empty());
        assert_eq!(lanes.due(after(3)), [peer]);
        assert!(lanes.take_fleeting(peer, 10, Some(after(2))).0.is_empty());
        assert_eq!(lanes.take_fleeting(peer, 10, Some(after(3))).1.len(), 2);
        assert_eq!(lanes.gathered_since(after(3)), None);
        assert!(lanes.rest(peer, after(3)));
    }

    #[test]
    fn who_does_not_take_what_is_due_holds_up_nobody() {
        let (lanes, slow, other) =
            (Lanes::default(), server_name!("slow.example"), server_name!("b.example"));
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(lanes.wake(slow));
        read_at(&lanes, slow, (now, 4), 7);
        assert_eq!(lanes.gathered_since(after(63)), Some(Position(7)));
        read_at(&lanes, other, (after(64), 4), 9);
        assert_eq!(lanes.gathered_since(after(64)), Some(Position(9)));
    }

    #[test]
    fn what_can_wait_goes_along_with_what_cannot() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let now = Instant::now();
        read_at(&lanes, peer, (now, 4), 7);
        assert!(lanes.wake(peer), "nothing else waits for it");
        assert_eq!(lanes.next_due(), None);
        assert_eq!(lanes.take_fleeting(peer, 10, None).1.len(), 1);
        assert!(lanes.rest(peer, now));
    }

    #[test]
    fn what_is_plenty_waits_no_longer() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let now = Instant::now();
        let mut at = 0;
        while lanes.next_due() != Some(now) {
            at += 1;
            assert!(at < 2_000, "some would be left out");
            read_at(&lanes, peer, (now, 4), at);
        }
        assert!(at > 100);
    }

    #[test]
    fn rows_that_leave_a_queue_are_counted_once() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        assert!(lanes.wake(peer));
        lanes.set_length(peer, Length { rows: 3, to: (7, Index(1)), left: 2 });
        let keys = [(7, 0), (7, 1), (8, 0)];
        let keys = keys.map(|(position, index)| (peer.to_owned(), position, Index(index)));
        lanes.done(peer, &keys);
        assert_eq!(lanes.length(peer), Length { rows: 1, to: (7, Index(1)), left: 0 });
    }

    #[test]
    fn waiting_ends_with_its_time_or_a_sign_of_life() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(lanes.wake(peer));
        lanes.wait(peer, after(100));
        assert!(!lanes.wake(peer) && lanes.is_waiting(peer));
        assert_eq!(lanes.next_due(), Some(after(100)));
        assert!(lanes.due(after(99)).is_empty());
        assert_eq!(lanes.due(after(100)), [peer]);
        lanes.wait(peer, after(200));
        assert!(lanes.wake_at_once(peer));
        assert_eq!(lanes.next_due(), None);
        assert!(!lanes.wake_at_once(peer));
    }
}
