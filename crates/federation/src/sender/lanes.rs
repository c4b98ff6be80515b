//! Which destinations are being served, which are waited for until when, and what is in memory for each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chappe_store::{Index, Position, outbox::OutboxKey};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::fleeting::{Fleeting, ReceiptPlace, Taken, is_worth_telling};

/// A destination that does not take what is due for so long holds up nobody: what is gathered for it then is lost if this
/// server stops.
const OVERDUE: Duration = Duration::from_mins(1);
/// A queue that could not be worked on for a fault of this server's is looked at again after so long, and after twice as long with
/// each time that follows, up to the longest.
const AFTER_FAULT: Duration = Duration::from_secs(1);
const LONGEST_AFTER_FAULT: Duration = Duration::from_mins(1);

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
    /// Told when there is word of the destination while it is being served.
    word: Arc<Notify>,
    /// Since when nothing may be sent there, in milliseconds since 1970.
    off_since: Option<u64>,
    /// Since when that is so though it is known who is let in.
    out_since: Option<u64>,
    length: Length,
    /// How often in a row it could not be worked on for a fault of this server's.
    faults: u32,
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
        self.revive(destination) || self.wake(destination)
    }

    /// There is word of a destination: if it is waited for, that is over. Gives whether the caller has to begin a worker.
    pub(super) fn revive(&self, destination: &ServerName) -> bool {
        let mut state = self.state.lock();
        let State { lanes, timetable } = &mut *state;
        let Some(lane) = lanes.get_mut(destination) else { return false };
        match lane.activity {
            Activity::Waiting { until } => {
                timetable.remove(&(until, destination.to_owned()));
                lane.activity = Activity::Serving { again: false };
                true
            }
            Activity::Serving { .. } => {
                lane.word.notify_one();
                false
            }
            Activity::Resting | Activity::Gathering { .. } => false,
        }
    }

    /// Told when there is word of a destination that is being served.
    pub(super) fn word_of(&self, destination: &ServerName) -> Arc<Notify> {
        let mut state = self.state.lock();
        Arc::clone(&state.lanes.entry(destination.to_owned()).or_default().word)
    }

    /// There may be word of any destination that is being served.
    pub(super) fn spread_word(&self) {
        let state = self.state.lock();
        let served = state.lanes.values().filter(|lane| matches!(lane.activity, Activity::Serving { .. }));
        for lane in served {
            lane.word.notify_one();
        }
    }

    /// A worker found nothing more that has to go now. Gives whether it may end.
    pub(super) fn rest(&self, destination: &ServerName, now: Instant) -> bool {
        let mut state = self.state.lock();
        let State { lanes, timetable } = &mut *state;
        let Some(lane) = lanes.get_mut(destination) else { return true };
        lane.faults = 0;
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
            lane.faults = 0;
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
        lane.wait(until);
        state.timetable.insert((until, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
        true
    }

    /// A worker ends for now.
    pub(super) fn wait(&self, destination: &ServerName, until: Instant) {
        self.end(destination, |lane| {
            lane.faults = 0;
            until
        });
    }

    /// A worker ends over a fault of this server's.
    pub(super) fn wait_for_repair(&self, destination: &ServerName, now: Instant) {
        self.end(destination, |lane| {
            let pause = AFTER_FAULT.saturating_mul(1 << lane.faults.min(10)).min(LONGEST_AFTER_FAULT);
            lane.faults = lane.faults.saturating_add(1);
            now + pause
        });
    }

    fn end(&self, destination: &ServerName, until: impl FnOnce(&mut Lane) -> Instant) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        let until = until(lane);
        lane.wait(until);
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

    /// Adds who types, or has stopped, unless that is worth nothing any more once the destination need not be waited for.
    pub(super) fn add_typing(
        &self,
        destination: &ServerName,
        when: When,
        ((room, user), typing): ((&RoomId, &UserId), bool),
    ) {
        let (place, said) = (|| (room.to_owned(), user.to_owned()), (typing, when.now));
        self.add(destination, when, |lane| match lane.activity {
            Activity::Waiting { until } if !is_worth_telling(said, until) => {}
            Activity::Waiting { .. } => lane.fleeting.late_typing(place(), said),
            _ => lane.fleeting.typing(place(), said),
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

    /// Forgets what was said of typing so long ago that it is worth nothing now.
    pub(super) fn drop_stale(&self, destination: &ServerName, now: Instant) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.fleeting.drop_stale(now);
        }
    }

    /// Takes up to `limit` EDUs out of what is in memory for a destination, if that is due by `now`, if given; what is taken is
    /// for [`Lanes::give_back`].
    pub(super) fn take_fleeting(
        &self,
        destination: &ServerName,
        limit: usize,
        now: Option<Instant>,
    ) -> (Vec<serde_json::Value>, Taken) {
        let mut state = self.state.lock();
        let lane = state.lanes.get_mut(destination);
        let Some(lane) = lane.filter(|lane| now.is_none_or(|now| lane.is_due(now))) else {
            return (Vec::new(), Taken::default());
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
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.fleeting.drop_momentary();
        }
    }

    /// A transaction was not taken: its receipts go with a later one, and who types if that comes soon; presence does not.
    pub(super) fn give_back(&self, destination: &ServerName, taken: Taken) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.fleeting.drop_presence();
            lane.fleeting.give_back(taken);
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
    /// It is waited for, and who types now is worth nothing if that takes too long.
    fn wait(&mut self, until: Instant) {
        (self.activity, self.since) = (Activity::Waiting { until }, None);
        self.fleeting.drop_stale(until);
    }

    fn is_waiting(&self) -> bool {
        matches!(self.activity, Activity::Waiting { .. })
    }

    /// Whether what is in memory has to go now.
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests;
