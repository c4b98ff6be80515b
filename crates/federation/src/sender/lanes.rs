//! Which destinations are being served, which are waited for until when, and what is in memory for each.

use std::collections::{BTreeSet, HashMap};

use chappe_store::{Index, outbox::OutboxKey};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::fleeting::{Fleeting, ReceiptPlace, Receipts};

#[derive(Default)]
pub(super) struct Lanes {
    state: Mutex<State>,
    timetable_changed: Notify,
}

#[derive(Default)]
struct State {
    lanes: HashMap<OwnedServerName, Lane>,
    /// `(time, destination)`, one for each waiting lane; the time is one of the steady clock, which nobody sets.
    timetable: BTreeSet<(Instant, OwnedServerName)>,
}

#[derive(Default)]
struct Lane {
    activity: Activity,
    /// Since when nothing may be sent there, in milliseconds since 1970.
    off_since: Option<u64>,
    length: Length,
    fleeting: Fleeting,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Resting,
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
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        match &mut lane.activity {
            Activity::Serving { again } => {
                *again = true;
                false
            }
            Activity::Waiting { .. } => false,
            resting @ Activity::Resting => {
                *resting = Activity::Serving { again: false };
                true
            }
        }
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

    /// A worker found nothing more. Gives whether it may end.
    pub(super) fn rest(&self, destination: &ServerName) -> bool {
        let mut state = self.state.lock();
        let Some(lane) = state.lanes.get_mut(destination) else { return true };
        // What was just added to it may come before the word that it was.
        if lane.activity == (Activity::Serving { again: true }) || !lane.fleeting.is_empty() {
            lane.activity = Activity::Serving { again: false };
            return false;
        }
        state.lanes.remove(destination);
        true
    }

    /// Nothing may be sent there. Gives since when that is known.
    pub(super) fn off_list(&self, destination: &ServerName, now: u64) -> u64 {
        let mut state = self.state.lock();
        *state.lanes.entry(destination.to_owned()).or_default().off_since.get_or_insert(now)
    }

    /// Something may be sent there.
    pub(super) fn on_list(&self, destination: &ServerName) {
        if let Some(lane) = self.state.lock().lanes.get_mut(destination) {
            lane.off_since = None;
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
        lane.activity = Activity::Waiting { until };
        state.timetable.insert((until, destination.to_owned()));
        drop(state);
        self.timetable_changed.notify_one();
        true
    }

    /// A worker ends for now.
    pub(super) fn wait(&self, destination: &ServerName, until: Instant) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        lane.activity = Activity::Waiting { until };
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
        self.state.lock().timetable.iter().map(|(_, destination)| destination.clone()).collect()
    }

    /// Adds a receipt to what is in memory for a destination until it is sent or replaced.
    pub(super) fn add_receipt(
        &self,
        destination: &ServerName,
        place: ReceiptPlace,
        (event, ts): (OwnedEventId, u64),
    ) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        if lane.is_waiting() {
            lane.fleeting.late_receipt(place, event, ts);
        } else {
            lane.fleeting.receipt(place, event, ts);
        }
    }

    /// Adds what is about this moment, unless the destination is being waited for.
    pub(super) fn add_momentary(&self, destination: &ServerName, add: impl FnOnce(&mut Fleeting)) {
        let mut state = self.state.lock();
        let lane = state.lanes.entry(destination.to_owned()).or_default();
        if !lane.is_waiting() {
            add(&mut lane.fleeting);
        }
    }

    /// Takes up to `limit` EDUs out of what is in memory for a destination; the receipts in them are for
    /// [`Lanes::give_back`].
    pub(super) fn take_fleeting(
        &self,
        destination: &ServerName,
        limit: usize,
    ) -> (Vec<serde_json::Value>, Receipts) {
        let mut state = self.state.lock();
        state.lanes.get_mut(destination).map(|lane| lane.fleeting.take(limit)).unwrap_or_default()
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
            lane.fleeting = Fleeting::default();
        }
    }
}

impl Lane {
    fn is_waiting(&self) -> bool {
        matches!(self.activity, Activity::Waiting { .. })
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id, server_name};

    use super::*;

    #[test]
    fn one_worker_per_destination_that_misses_nothing() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        assert!(lanes.wake(peer));
        assert!(!lanes.wake(peer), "a second worker");
        assert!(!lanes.rest(peer), "what came meanwhile was missed");
        assert!(lanes.rest(peer));
        assert!(lanes.wake(peer));
    }

    #[test]
    fn a_worker_does_not_end_over_what_was_just_added() {
        let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
        assert!(lanes.wake(peer));
        lanes.add_momentary(peer, |fleeting| {
            fleeting.typing(owned_room_id!("!r:a"), owned_user_id!("@u:a"), true);
        });
        assert!(!lanes.rest(peer), "it would be lost");
        assert_eq!(lanes.take_fleeting(peer, 10).0.len(), 1);
        assert!(lanes.rest(peer));
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
        let after = |seconds| begun + std::time::Duration::from_secs(seconds);
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
