//! Connections: what the device at the other end has been sent, as far as it has said that it got it.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt,
    str::FromStr,
    sync::Arc,
};

use chappe_store::{Position, RoomNid};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};

use super::sent::{Common, Sent};
use crate::{Error, Received, SyncToken};

/// Connections of one device; with more, the one unused for longest has to begin again.
const PER_DEVICE: usize = 8;
/// Bytes that the connections of all devices may take, about; those of devices that do not come back give way first and
/// have to begin again.
const BYTES: u64 = 512 << 20;
/// Devices whose connections have room there if all are large. For no more of them the cache has so few parts that those
/// of one fit into a part.
const DEVICES: usize = 500;
/// Bytes that a device and each of its connections take beside what is told of rooms, about.
const BESIDE: usize = 500;
/// Kinds of [`Common`] that are kept once.
const ALIKE: usize = 10_000;

/// A room of the user's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RoomKey {
    /// This server knows it.
    Here(RoomNid),
    /// Only an invite or knock is known.
    Elsewhere(OwnedRoomId),
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

/// Bytes that some rooms take beside their places in a map.
fn bytes_of<'a>(rooms: impl Iterator<Item = (&'a RoomKey, &'a Sent)>) -> usize {
    let name = |key: &RoomKey| match key {
        RoomKey::Here(_) => 0,
        RoomKey::Elsewhere(room) => room.as_str().len(),
    };
    rooms.map(|(key, sent)| name(key) + sent.bytes()).sum()
}

/// Bytes of a room's place in a map.
const PLACE: usize = size_of::<(RoomKey, Sent)>() + 1;

impl News {
    fn bytes(&self) -> usize {
        self.rooms.len() * PLACE + bytes_of(self.rooms.iter().map(|one| (&one.0, &one.1)))
    }
}

impl Known {
    fn bytes(&self) -> usize {
        self.rooms.capacity() * PLACE + bytes_of(self.rooms.iter())
    }

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
    /// What it took after the last answer, about.
    bytes: usize,
}

impl Connection {
    fn new(number: u64) -> Self {
        Self { number, steps: 0, arrived: (0, Arc::default()), under_way: None, used: 0, bytes: 0 }
    }

    /// Notes the next answer; gives its number.
    fn answer(&mut self, news: News) -> u64 {
        self.steps += 1;
        self.bytes = self.arrived.1.bytes() + news.bytes();
        self.under_way = Some((self.steps, news));
        self.steps
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

impl OfDevice {
    fn bytes(&self) -> usize {
        let of_one = |(name, connection): (&String, &Connection)| BESIDE + name.len() + connection.bytes;
        BESIDE + self.connections.iter().map(of_one).sum::<usize>()
    }
}

/// The connections of a device, and what they were when they were put where they are: a weight never changes.
#[derive(Clone)]
struct Held {
    bytes: u64,
    of_device: Arc<Mutex<OfDevice>>,
}

/// Weighs connections by their bytes.
#[derive(Clone)]
struct BySize;

impl Weighter<Device, Held> for BySize {
    fn weight(&self, _: &Device, held: &Held) -> u64 {
        held.bytes
    }
}

/// All connections of this process.
pub(crate) struct Connections {
    held: Cache<Device, Held, BySize>,
    alike: Cache<Common, Arc<Common>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::within(BYTES)
    }
}

/// A request's place on its connection.
pub(super) struct Open<'a> {
    all: &'a Connections,
    device: &'a Device,
    of_device: Arc<Mutex<OfDevice>>,
    name: String,
    number: u64,
    /// Which request of the device.
    request: u64,
    /// What the device has.
    pub(super) known: Arc<Known>,
}

impl Connections {
    fn within(bytes: u64) -> Self {
        Self { held: Cache::with_weighter(DEVICES, bytes, BySize), alike: Cache::new(ALIKE) }
    }

    /// The same with what others have as well kept once.
    pub(super) fn share(&self, mut sent: Sent) -> Sent {
        let common = || Ok::<_, Infallible>(sent.common.clone());
        sent.common = match self.alike.get_or_insert_with(&*sent.common, common) {
            Ok(kept) => kept,
            Err(never) => match never {},
        };
        sent
    }

    fn of(&self, device: &Device) -> Arc<Mutex<OfDevice>> {
        let new = || Ok::<_, Infallible>(Held { bytes: BESIDE as u64, of_device: Arc::default() });
        match self.held.get_or_insert_with(device, new) {
            Ok(held) => held.of_device,
            Err(never) => match never {},
        }
    }

    /// Notes how much the connections of a device take, unless others took their place meanwhile.
    fn weigh(&self, device: &Device, of_device: &Arc<Mutex<OfDevice>>, bytes: usize) {
        // The cache refuses what fills a part of it.
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).min(self.held.shard_capacity() / 4);
        let held = self.held.peek(device);
        if held.is_none_or(|held| held.bytes != bytes && Arc::ptr_eq(&held.of_device, of_device)) {
            self.held.insert(device.clone(), Held { bytes, of_device: of_device.clone() });
        }
    }

    /// A new connection of a device instead of the one of that name; `number` is given to no other.
    pub(super) fn begin<'a>(&'a self, device: &'a Device, name: &str, number: u64) -> Open<'a> {
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
        let (name, known) = (name.to_owned(), Arc::default());
        Open { all: self, device, of_device, name, number, request, known }
    }

    /// A connection at one of its last two answers; [`Error::UnknownPos`] for everything else, whoever got it.
    pub(super) fn resume<'a>(&'a self, device: &'a Device, name: &str, pos: &str) -> Result<Open<'a>, Error> {
        let pos: Pos = pos.parse()?;
        let of_device = self.held.get(device).ok_or(Error::UnknownPos)?.of_device;
        let (known, request) = {
            let mut held = of_device.lock();
            held.uses += 1;
            let uses = held.uses;
            let connection = held.connections.get_mut(name).ok_or(Error::UnknownPos)?;
            let known = connection.at(pos).ok_or(Error::UnknownPos)?;
            connection.used = uses;
            (known, uses)
        };
        let (name, number) = (name.to_owned(), pos.connection);
        Ok(Open { all: self, device, of_device, name, number, request, known })
    }

    /// Forgets what a device was sent.
    #[cfg(test)]
    pub(crate) fn forget(&self, device: &Device) {
        self.held.remove(device);
    }
}

impl Open<'_> {
    /// The `pos` of an answer with `news`. A connection that has begun again meanwhile gets one that it will not know, and
    /// so does a request that the device gave up: whatever it asked since goes on from what arrived.
    pub(super) fn answer(&self, news: News) -> Pos {
        let token = news.token;
        let (step, bytes) = {
            let mut held = self.of_device.lock();
            let connection = held
                .connections
                .get_mut(&self.name)
                .filter(|found| found.number == self.number && found.used == self.request);
            let step = connection.map_or(0, |connection| connection.answer(news));
            (step, held.bytes())
        };
        self.all.weigh(self.device, &self.of_device, bytes);
        Pos { connection: self.number, step, token }
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{Position, RoomNid};
    use ruma::{OwnedDeviceId, user_id};

    use super::{Connections, Device, News, PER_DEVICE, Pos, RoomKey, Sent};
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
    fn connections_have_so_much_room_and_those_in_use_stay() {
        const BYTES: u64 = 1 << 20;
        const OTHERS: u64 = 400;
        let (all, me) = (Connections::within(BYTES), device("me"));
        let sent =
            |room| (RoomKey::Here(RoomNid(room)), all.share(Sent { up_to: Position(1), ..Sent::default() }));
        let many = || News { rooms: (0..100).map(sent).collect(), ..News::default() };
        let mut pos = all.begin(&me, "c", 0).answer(many()).to_string();
        for other in 1..=OTHERS {
            all.begin(&device(&other.to_string()), "c", other).answer(many());
            pos = all.resume(&me, "c", &pos).unwrap().answer(News::default()).to_string();
        }
        assert!(all.held.weight() <= BYTES);
        assert!(all.held.peek(&me).unwrap().bytes < 100 * 80, "a room costs a few words");
        let kept = (1..=OTHERS).filter(|other| all.held.peek(&device(&other.to_string())).is_some());
        assert!((100..OTHERS).contains(&(kept.count() as u64)));
    }
}
