//! Connections: what the device at the other end has been sent, as far as it has said that it got it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

use chappe_rules::push::Counts;
use chappe_store::{EventNum, Position, RoomNid};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};

use crate::{Error, Received, SyncToken};

/// Connections of one device; with more, the one unused for longest has to begin again.
const PER_DEVICE: usize = 8;
/// Devices with connections; those that do not fit have to begin again.
const DEVICES: usize = 20_000;
/// Lazily sent members remembered of one room; they are sent again when there are more.
const MEMBERS: usize = 500;

/// A room of the user's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RoomKey {
    /// This server knows it.
    Here(RoomNid),
    /// Only an invite or knock is known.
    Elsewhere(OwnedRoomId),
}

/// What a device has been sent of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Everything up to here.
    pub(super) up_to: Position,
    /// The marks of the state that was asked for then.
    pub(super) asked: Arc<[u64]>,
    /// Events of the timeline it has at least, if the room has so many.
    pub(super) timeline: usize,
    /// Membership events sent because they were needed, ascending.
    pub(super) members: Arc<Vec<EventNum>>,
    /// What it was told the room is.
    pub(super) is_dm: bool,
    /// The user has left, and the device has been told.
    pub(super) ended: bool,
    /// How much it was told is unread.
    pub(super) unread: Counts,
    /// The extensions from whose beginning it has been told of this room.
    pub(super) begun: Begun,
}

/// Extensions that have begun to tell of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) account_data: bool,
    pub(super) receipts: bool,
    pub(super) typing: bool,
}

impl Sent {
    pub(super) fn knows_member(&self, num: EventNum) -> bool {
        self.members.binary_search(&num).is_ok()
    }

    /// Notes members that were sent because they were needed.
    pub(super) fn note_members(&mut self, nums: impl IntoIterator<Item = EventNum>) {
        let mut fresh: Vec<EventNum> = nums.into_iter().filter(|num| !self.knows_member(*num)).collect();
        if fresh.is_empty() {
            return;
        }
        if self.members.len() + fresh.len() <= MEMBERS {
            fresh.extend(self.members.iter());
        }
        fresh.sort_unstable();
        fresh.dedup();
        fresh.truncate(MEMBERS);
        self.members = Arc::new(fresh);
    }
}

/// Up to where extensions were told, those that are not told room by room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) account_data: Option<Position>,
    pub(super) receipts: Option<Position>,
    pub(super) e2ee: Option<Position>,
    pub(super) typing: Option<u64>,
    pub(super) threads: Option<Position>,
    /// What the answer gave as the next `since` of messages for the device.
    pub(super) to_device: Option<Received>,
    /// The same of sticky events.
    pub(super) sticky: Option<Received>,
}

/// What the device at the other end has.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Everything was looked at up to here; none: nothing yet.
    pub(super) token: Option<SyncToken>,
    pub(super) rooms: HashMap<RoomKey, Sent>,
    pub(super) told: Told,
    /// The mark of the request that was answered.
    pub(super) asked: u64,
    /// Whether there was more than an answer holds.
    pub(super) lags: bool,
    /// Rooms in each list.
    pub(super) counts: BTreeMap<String, usize>,
}

/// What an answer adds to that.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) token: SyncToken,
    /// Rooms of which something was sent.
    pub(super) rooms: Vec<(RoomKey, Sent)>,
    pub(super) told: Told,
    pub(super) asked: u64,
    pub(super) lags: bool,
    pub(super) counts: BTreeMap<String, usize>,
}

impl Known {
    fn learn(&mut self, news: News) {
        self.token = Some(news.token);
        self.rooms.extend(news.rooms);
        self.told = news.told;
        self.asked = news.asked;
        self.lags = news.lags;
        self.counts = news.counts;
    }
}

/// Which answer of which connection, with what was seen then: `s1_<connection>_<answer>_<sync token>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pos {
    connection: u64,
    step: u64,
    token: SyncToken,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{:x}_{}_{}", self.connection, self.step, self.token)
    }
}

impl FromStr for Pos {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let (connection, rest) = text.strip_prefix("s1_")?.split_once('_')?;
            let (step, token) = rest.split_once('_')?;
            let connection = u64::from_str_radix(connection, 16).ok()?;
            Some(Self { connection, step: step.parse().ok()?, token: token.parse().ok()? })
        };
        read().ok_or(Error::UnknownPos)
    }
}

/// One connection. An answer counts once the device comes back with its `pos`.
struct Connection {
    number: u64,
    steps: u64,
    /// The last answer that arrived.
    arrived: (u64, Arc<Known>),
    /// The one after it.
    under_way: Option<(u64, News)>,
    /// The last request, as the device counts them.
    used: u64,
}

impl Connection {
    fn new(number: u64) -> Self {
        Self { number, steps: 0, arrived: (0, Arc::default()), under_way: None, used: 0 }
    }

    fn at(&mut self, pos: Pos) -> Option<Arc<Known>> {
        if pos.connection != self.number {
            return None;
        }
        if let Some((step, news)) = self.under_way.take_if(|(step, _)| *step == pos.step) {
            let known = &mut self.arrived;
            Arc::make_mut(&mut known.1).learn(news);
            known.0 = step;
        }
        (pos.step == self.arrived.0 && pos.step > 0).then(|| self.arrived.1.clone())
    }
}

type Device = (OwnedUserId, OwnedDeviceId);

#[derive(Default)]
struct OfDevice {
    connections: BTreeMap<String, Connection>,
    uses: u64,
}

/// All connections of this process.
pub(crate) struct Connections(Cache<Device, Arc<Mutex<OfDevice>>>);

impl Default for Connections {
    fn default() -> Self {
        Self(Cache::new(DEVICES))
    }
}

/// A request's place on its connection.
pub(super) struct Open {
    of_device: Arc<Mutex<OfDevice>>,
    name: String,
    number: u64,
    /// Which request of the device.
    request: u64,
    /// What the device has.
    pub(super) known: Arc<Known>,
}

impl Connections {
    fn of(&self, device: &Device) -> Arc<Mutex<OfDevice>> {
        let found = self.0.get_or_insert_with(device, || Ok::<_, std::convert::Infallible>(Arc::default()));
        match found {
            Ok(found) => found,
            Err(never) => match never {},
        }
    }

    /// A new connection of a device instead of the one of that name; `number` is given to no other.
    pub(super) fn begin(&self, device: &Device, name: &str, number: u64) -> Open {
        let of_device = self.of(device);
        let request = {
            let mut held = of_device.lock();
            held.uses += 1;
            let connection = Connection { used: held.uses, ..Connection::new(number) };
            held.connections.insert(name.to_owned(), connection);
            while held.connections.len() > PER_DEVICE {
                let oldest = held.connections.iter().min_by_key(|(_, connection)| connection.used);
                let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
                held.connections.remove(&oldest);
            }
            held.uses
        };
        Open { of_device, name: name.to_owned(), number, request, known: Arc::default() }
    }

    /// A connection at one of its last two answers; [`Error::UnknownPos`] for everything else, whoever got it.
    pub(super) fn resume(&self, device: &Device, name: &str, pos: &str) -> Result<Open, Error> {
        let pos: Pos = pos.parse()?;
        let of_device = self.0.get(device).ok_or(Error::UnknownPos)?;
        let (known, request) = {
            let mut held = of_device.lock();
            held.uses += 1;
            let uses = held.uses;
            let connection = held.connections.get_mut(name).ok_or(Error::UnknownPos)?;
            let known = connection.at(pos).ok_or(Error::UnknownPos)?;
            connection.used = uses;
            (known, uses)
        };
        Ok(Open { of_device, name: name.to_owned(), number: pos.connection, request, known })
    }

    /// Forgets what a device was sent.
    #[cfg(test)]
    pub(crate) fn forget(&self, device: &Device) {
        self.0.remove(device);
    }
}

impl Open {
    /// The `pos` of an answer with `news`. A connection that has begun again meanwhile gets one that it will not know, and
    /// so does a request that the device gave up: whatever it asked since goes on from what arrived.
    pub(super) fn answer(&self, news: News) -> Pos {
        let mut held = self.of_device.lock();
        let token = news.token;
        let connection = held
            .connections
            .get_mut(&self.name)
            .filter(|found| found.number == self.number && found.used == self.request);
        let step = connection.map_or(0, |connection| {
            connection.steps += 1;
            connection.under_way = Some((connection.steps, news));
            connection.steps
        });
        Pos { connection: self.number, step, token }
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{EventNum, Position, RoomNid};
    use ruma::{OwnedDeviceId, user_id};

    use super::{Connections, Device, MEMBERS, News, PER_DEVICE, Pos, RoomKey, Sent};
    use crate::SyncToken;

    fn device(name: &str) -> Device {
        (user_id!("@a:a").to_owned(), OwnedDeviceId::from(name))
    }

    fn news(room: u32, up_to: u64) -> News {
        let sent = Sent { up_to: Position(up_to), ..Sent::default() };
        News { rooms: vec![(RoomKey::Here(RoomNid(room)), sent)], ..News::default() }
    }

    #[test]
    fn an_answer_counts_once_it_is_acknowledged() {
        let (all, me) = (Connections::default(), device("D"));
        let first = all.begin(&me, "c", 7).answer(news(1, 10)).to_string();
        let open = all.resume(&me, "c", &first).unwrap();
        assert_eq!(open.known.rooms.len(), 1);
        let lost = open.answer(news(2, 20)).to_string();
        let again = all.resume(&me, "c", &first).unwrap();
        assert_eq!(again.known.rooms.len(), 1, "what never arrived does not count");
        let second = again.answer(news(3, 30)).to_string();
        assert!(all.resume(&me, "c", &lost).is_err(), "an answer that another replaced");
        let open = all.resume(&me, "c", &second).unwrap();
        assert!(!open.known.rooms.contains_key(&RoomKey::Here(RoomNid(2))));
        assert!(all.resume(&me, "c", &first).is_err(), "older than the last that arrived");
    }

    #[test]
    fn a_request_that_was_given_up_changes_nothing() {
        let (all, me) = (Connections::default(), device("D"));
        let first = all.begin(&me, "c", 7).answer(news(1, 10)).to_string();
        let given_up = all.resume(&me, "c", &first).unwrap();
        let second = all.resume(&me, "c", &first).unwrap().answer(news(2, 20)).to_string();
        let late = given_up.answer(news(3, 30)).to_string();
        let open = all.resume(&me, "c", &second).unwrap();
        let third = open.answer(news(4, 40)).to_string();
        given_up.answer(news(3, 50));
        let open = all.resume(&me, "c", &third).unwrap();
        assert!(open.known.rooms.contains_key(&RoomKey::Here(RoomNid(4))));
        assert!(!open.known.rooms.contains_key(&RoomKey::Here(RoomNid(3))));
        assert!(all.resume(&me, "c", &late).is_err());
    }

    #[test]
    fn nobody_goes_on_where_others_are() {
        let (all, me) = (Connections::default(), device("D"));
        let pos = all.begin(&me, "c", 7).answer(news(1, 10)).to_string();
        assert!(all.resume(&device("E"), "c", &pos).is_err());
        assert!(all.resume(&me, "other", &pos).is_err());
        all.begin(&me, "c", 8).answer(news(1, 10));
        assert!(all.resume(&me, "c", &pos).is_err(), "the connection has begun again");
        for bad in ["", "s1_", "s1_7_0_c1_1_0-0", "s1_7_x_c1_1_0-0", "c1_1_0-0", "s1_8_99_c1_1_0-0"] {
            assert!(all.resume(&me, "c", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_connection_unused_for_longest_gives_way() {
        let (all, me) = (Connections::default(), device("D"));
        let first = all.begin(&me, "0", 0).answer(news(1, 1)).to_string();
        let second = all.begin(&me, "1", 1).answer(news(1, 1)).to_string();
        all.resume(&me, "0", &first).unwrap();
        for n in 2..=PER_DEVICE {
            all.begin(&me, &n.to_string(), n as u64).answer(news(1, 1));
        }
        assert!(all.resume(&me, "0", &first).is_ok());
        assert!(all.resume(&me, "1", &second).is_err());
    }

    #[test]
    fn positions_survive_their_text() {
        let token = SyncToken { position: Position(3), epoch: 4, fleeting: 5, to_device: None };
        let pos = Pos { connection: u64::MAX, step: 2, token };
        assert_eq!(pos.to_string().parse::<Pos>().unwrap(), pos);
    }

    #[test]
    fn members_that_were_sent_are_remembered_up_to_a_number() {
        let mut sent = Sent::default();
        sent.note_members([EventNum(5), EventNum(3), EventNum(5)]);
        assert!(sent.knows_member(EventNum(3)) && !sent.knows_member(EventNum(4)));
        sent.note_members((10..).take(MEMBERS).map(EventNum));
        assert!(!sent.knows_member(EventNum(3)) && sent.knows_member(EventNum(10)));
        assert_eq!(sent.members.len(), MEMBERS);
    }
}
