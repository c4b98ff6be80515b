//! Rooms in which many are attached: what happens there beside what is said is noted in the room, where those who sync look,
//! and told to those who wait all together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chappe_store::{EventNum, Position, Reader, RoomNid, state::StateKey};
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use tokio::sync::Notify;

use super::{Error, Wake};
use crate::signal::{Signal, Touch};

/// In a room with no more attached users everybody is told of everything at once.
pub(crate) const FEW: usize = 50;
/// From one turn of telling to the next.
const TURN: Duration = Duration::from_secs(1);
/// Users of a room of whom it is remembered that their devices changed.
const CHANGED: usize = 128;
/// Users woken at once, and the time before the next: each of them comes back with another request.
const AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(100);

/// After how many turns a room with so many attached users is told again. The longer times are multiples of the shorter ones:
/// whoever is in several such rooms is woken for all of them at once.
fn turns(attached: usize) -> u64 {
    match attached {
        0..200 => 1,
        200..800 => 2,
        800..3_200 => 4,
        3_200..12_800 => 8,
        _ => 16,
    }
}

/// What is noted in rooms.
#[derive(Default)]
pub(crate) struct Crowds {
    noted: RwLock<HashMap<RoomNid, Noted>>,
    untold: Mutex<BTreeMap<RoomNid, Untold>>,
    /// Something is untold.
    gathered: Notify,
}

/// The last changes that were noted in a room, and not with each of its users.
#[derive(Default)]
struct Noted {
    events: Position,
    receipts: Position,
    /// Whose devices changed, the last of them.
    devices: VecDeque<(Position, OwnedUserId)>,
    /// Up to there somebody's devices changed and it is forgotten whose.
    forgotten: Position,
}

impl Noted {
    fn note(&mut self, at: Position, touch: &Touch) {
        let last = match touch {
            Touch::Devices(_, user) => return self.note_devices(at, user),
            Touch::Receipts(_) => &mut self.receipts,
            _ => &mut self.events,
        };
        *last = at.max(*last);
    }

    fn note_devices(&mut self, at: Position, user: &OwnedUserId) {
        if self.devices.len() == CHANGED
            && let Some((gone, _)) = self.devices.pop_front()
        {
            self.forgotten = self.forgotten.max(gone);
        }
        self.devices.push_back((at, user.clone()));
    }

    /// Where to look, as of a snapshot at `up_to`, for what was noted after a position.
    fn after(&self, nid: RoomNid, after: Position, up_to: Position) -> impl Iterator<Item = Touch> {
        let last = [
            (self.events, Touch::Room(nid)),
            (self.receipts, Touch::Receipts(nid)),
            (self.forgotten, Touch::DeviceLists),
        ];
        let last = last.into_iter().filter(move |(at, _)| *at > after).map(|(_, touch)| touch);
        let devices = self.devices.iter().filter(move |(at, _)| *at > after && *at <= up_to);
        last.chain(devices.map(move |(_, user)| Touch::Devices(nid, user.clone())))
    }
}

/// The last changes of which those who wait are still to be told.
#[derive(Clone, Copy, Default)]
struct Untold {
    position: Position,
    typing: u64,
    /// In the next turn, however many they are.
    soon: bool,
}

impl Crowds {
    fn note(&self, nid: RoomNid, at: Position, touch: &Touch, soon: bool) {
        self.noted.write().entry(nid).or_default().note(at, touch);
        self.gather(nid, Untold { position: at, typing: 0, soon });
    }

    fn gather(&self, nid: RoomNid, news: Untold) {
        let mut untold = self.untold.lock();
        let room = untold.entry(nid).or_default();
        room.position = room.position.max(news.position);
        room.typing = room.typing.max(news.typing);
        room.soon |= news.soon;
        drop(untold);
        self.gathered.notify_one();
    }

    /// Where an attached user has to look, as of a snapshot at `up_to`, for what was noted after a position.
    pub(crate) fn after(
        &self,
        rooms: &BTreeMap<RoomNid, (bool, Position)>,
        after: Position,
        up_to: Position,
    ) -> Vec<Touch> {
        let noted = self.noted.read();
        if noted.is_empty() {
            return Vec::new();
        }
        // Whose membership changed after the snapshot may be in the room there.
        let rooms = rooms.iter().filter(|(_, (joined, at))| *joined || *at > up_to);
        let found = rooms.filter_map(|(nid, _)| Some((*nid, noted.get(nid)?)));
        found.flat_map(|(nid, room)| room.after(nid, after, up_to)).collect()
    }

    /// Forgets what was noted in rooms that are not to be kept.
    pub(super) fn keep(&self, keeps: impl Fn(RoomNid) -> bool) {
        self.noted.write().retain(|nid, _| keeps(*nid));
    }

    /// Returns once there is something to tell.
    async fn gathered(&self) {
        while self.untold.lock().is_empty() {
            self.gathered.notified().await;
        }
    }

    /// Takes out what is to be told in some rooms, and in those where it is to be told soon; the latest change first.
    fn take(&self, is_due: impl Fn(RoomNid) -> bool) -> Vec<(RoomNid, Untold)> {
        let mut taken = Vec::new();
        self.untold.lock().retain(|nid, news| {
            let due = news.soon || is_due(*nid);
            if due {
                taken.push((*nid, *news));
            }
            !due
        });
        taken.sort_by_key(|(_, news)| Reverse(news.position));
        taken
    }
}

impl Wake {
    fn is_crowded(&self, nid: RoomNid) -> bool {
        self.rooms.read().get(&nid).is_some_and(|users| users.len() > FEW)
    }

    /// Tells a room of a receipt: where many are attached, when it is the room's turn.
    pub(super) fn tell_receipt(&self, nid: RoomNid, at: Position) {
        if self.is_crowded(nid) {
            self.crowds.note(nid, at, &Touch::Receipts(nid), false);
        } else {
            self.touch_room(nid, at, &Touch::Receipts(nid));
        }
    }

    /// Tells rooms of what decides for whom their members encrypt, so in the next turn where they do.
    pub(super) async fn tell_recipients(
        &self,
        reader: &Reader<'_>,
        rooms: &[RoomNid],
        at: Position,
        touch: impl Fn(RoomNid) -> Touch,
    ) -> Result<(), Error> {
        let (crowded, others): (Vec<RoomNid>, Vec<RoomNid>) =
            rooms.iter().copied().partition(|nid| self.is_crowded(*nid));
        for nid in others {
            self.touch_room(nid, at, &touch(nid));
        }
        let encryption = reader.state_of_rooms(&crowded, &StateKey::new("m.room.encryption", "")).await?;
        for (nid, encryption) in crowded.into_iter().zip(encryption) {
            self.crowds.note(nid, at, &touch(nid), encryption.is_some());
        }
        Ok(())
    }

    /// Tells a room of a membership event. Whose membership it is and who made it so hear of it at once.
    pub(super) async fn tell_membership(
        &self,
        reader: &Reader<'_>,
        (nid, num, member): (RoomNid, EventNum, &UserId),
        at: Position,
    ) -> Result<(), Error> {
        self.tell_recipients(reader, &[nid], at, Touch::Room).await?;
        if self.is_crowded(nid)
            && let Some(sender) = sender(reader, (nid, num)).await?
        {
            self.touch_user(&sender, at, Touch::Room(nid));
        }
        self.reread(reader, member, nid, at).await
    }

    /// Tells a room that others type there than before. Their own devices need not hear of it sooner.
    pub(crate) fn tell_typing(&self, nid: RoomNid, sequence: u64) {
        if self.is_crowded(nid) {
            self.crowds.gather(nid, Untold { typing: sequence, ..Untold::default() });
            return;
        }
        for signal in self.in_room(nid) {
            signal.touch_typing(sequence);
        }
    }

    /// Starts the task that tells rooms what was gathered; it ends with the world.
    pub(crate) fn tell_crowds(self: &Arc<Self>) {
        let wake = self.clone();
        drop(self.world.spawn("delivery-crowds", async move {
            for turn in 1_u64.. {
                tokio::select! {
                    biased;
                    () = wake.world.stopping() => return,
                    () = wake.crowds.gathered() => {}
                }
                wake.pause(TURN).await;
                let hearing = wake.hearing(turn);
                if hearing.is_empty() {
                    continue;
                }
                // Beside the next turn: rooms with few in them do not wait for those with many.
                let rousing = wake.clone();
                let rouse = async move { rousing.rouse(&hearing).await };
                drop(wake.world.spawn("delivery-crowds-news", rouse));
            }
        }));
    }

    /// For whom it is news what is to be told in a turn. Whoever was told meanwhile, with a message for example, is not among
    /// them.
    fn hearing(&self, turn: u64) -> Vec<Arc<Signal>> {
        let rooms = self.rooms.read();
        let attached = |nid: RoomNid| rooms.get(&nid).map_or(0, BTreeMap::len);
        let mut hearing = Vec::new();
        for (nid, news) in self.crowds.take(|nid| turn.is_multiple_of(turns(attached(nid)))) {
            let users = rooms.get(&nid).into_iter().flat_map(BTreeMap::values);
            hearing.extend(users.filter(|signal| signal.hear_gathered(news.position, news.typing)).cloned());
        }
        hearing
    }

    /// Wakes users, some of them at once and the others after them.
    pub(crate) async fn rouse(&self, users: &[Arc<Signal>]) {
        for (turn, some) in users.chunks(AT_ONCE).enumerate() {
            if turn > 0 {
                self.pause(PAUSE).await;
            }
            for signal in some {
                signal.rouse();
            }
        }
    }

    /// Waits for so long, or until the server stops.
    pub(crate) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.world.stopping() => {}
            () = self.world.sleep(time) => {}
        }
    }
}

/// Who made an event, if it is still there and can be read: nothing but a wake-up depends on it.
async fn sender(reader: &Reader<'_>, (nid, num): (RoomNid, EventNum)) -> Result<Option<OwnedUserId>, Error> {
    #[derive(Deserialize)]
    struct Made {
        sender: OwnedUserId,
    }
    let pdu = match reader.pdus_of(&[(nid, num)]).await {
        Err(error @ chappe_store::Error::Corrupt(_)) => {
            tracing::warn!(%error, room = nid.0, number = num.0, "an event cannot be read");
            None
        }
        pdus => pdus?.pop().flatten(),
    };
    Ok(pdu.and_then(|pdu| serde_json::from_str::<Made>(&pdu.json).ok()).map(|made| made.sender))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chappe_store::{Position, RoomNid};
    use ruma::{OwnedUserId, user_id};

    use super::{CHANGED, Crowds, Untold, turns};
    use crate::signal::Touch;

    #[test]
    fn longer_times_are_multiples_of_shorter_ones() {
        let all = [1, 51, 200, 800, 3_200, 12_800, 60_000].map(turns);
        assert_eq!(all, [1, 1, 2, 4, 8, 16, 16]);
        assert!(all.windows(2).all(|pair| pair[1].is_multiple_of(pair[0])));
    }

    #[test]
    fn one_looks_where_something_was_noted() {
        let crowds = Crowds::default();
        let room = RoomNid(7);
        crowds.note(room, Position(5), &Touch::Receipts(room), false);
        crowds.note(room, Position(8), &Touch::Room(room), false);
        let after = |position: u64, joined: (bool, Position)| {
            crowds.after(&BTreeMap::from([(room, joined)]), Position(position), Position(9))
        };
        let inside = (true, Position(1));
        assert_eq!(after(4, inside), [Touch::Room(room), Touch::Receipts(room)]);
        assert_eq!((after(5, inside), after(8, inside)), (vec![Touch::Room(room)], Vec::new()));
        assert_eq!(after(4, (false, Position(9))), [], "who has left");
        assert_eq!(after(5, (false, Position(10))), [Touch::Room(room)], "who leaves after the snapshot");
        crowds.keep(|nid| nid != room);
        assert_eq!(after(4, inside), []);
    }

    #[test]
    fn of_a_room_it_is_remembered_whose_devices_changed_last() {
        let (crowds, room) = (Crowds::default(), RoomNid(7));
        let note = |at: usize, user: OwnedUserId| {
            crowds.note(room, Position(at as u64), &Touch::Devices(room, user), false);
        };
        let after = |position: usize, up_to: usize| {
            let rooms = BTreeMap::from([(room, (true, Position(1)))]);
            crowds.after(&rooms, Position(position as u64), Position(up_to as u64))
        };
        let bob = user_id!("@bob:a.example");
        note(5, bob.to_owned());
        assert_eq!(after(4, 5), [Touch::Devices(room, bob.to_owned())]);
        assert_eq!((after(4, 4), after(5, 9)), (Vec::new(), Vec::new()));
        for nth in 0..CHANGED {
            note(6 + nth, format!("@{nth}:a.example").try_into().unwrap());
        }
        assert_eq!(after(5, usize::MAX).len(), CHANGED);
        assert_eq!(
            after(4, usize::MAX).first(),
            Some(&Touch::DeviceLists),
            "whose the first were is forgotten"
        );
    }

    #[test]
    fn what_is_taken_to_be_told_comes_once_and_the_latest_first() {
        let crowds = Crowds::default();
        let gather = |nid: u32, position: u64, soon: bool| {
            crowds.gather(RoomNid(nid), Untold { position: Position(position), typing: 0, soon });
        };
        for (nid, position) in [(1, 5), (2, 9), (3, 7), (2, 6)] {
            gather(nid, position, false);
        }
        let take = |due: &[u32]| -> Vec<(u32, u64)> {
            let taken = crowds.take(|nid| due.contains(&nid.0));
            taken.into_iter().map(|(nid, news)| (nid.0, news.position.0)).collect()
        };
        assert_eq!(take(&[1, 2]), [(2, 9), (1, 5)]);
        gather(1, 10, true);
        gather(1, 11, false);
        assert_eq!(take(&[]), [(1, 11)], "it does not wait for the room's turn");
        assert_eq!(take(&[1, 2, 3]), [(3, 7)]);
    }
}
