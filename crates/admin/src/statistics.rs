//! Statistics: a follower of the log that counts, by day, domain and kind, and nothing of who and what. See ADR 23.

mod kinds;
mod levels;
mod report;
mod sums;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chappe_media::Media;
use chappe_rooms::{Rooms, View};
use chappe_store::{Cursors, Entry, EventNum, LogEntry, Position, Reader, RoomNid, Store, Tx};
use chappe_world::{Live, World};
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

pub use self::report::Grouping;
pub(crate) use self::report::Period;
use self::sums::{People, Sums};
use crate::Error;

/// The follower's name among the cursors.
const NAME: &str = "statistics";
/// How often it is looked what there is to count.
const ROUND: Duration = Duration::from_mins(1);
/// Log entries counted in one commit.
const BATCH: usize = 1_000;
/// Events of a room loaded at once.
const PAGE: usize = 500;
/// How often a round begins anew when another one was first.
const TRIES: usize = 20;
const DAY_MS: u64 = 86_400_000;

/// The section `[admin.statistics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatisticsConfig {
    /// How long figures are kept, in days; 0: nothing is counted.
    pub keep_days: u32,
    /// Figures about fewer people than this are shown to nobody.
    pub smallest_group: usize,
}

impl Default for StatisticsConfig {
    fn default() -> Self {
        Self { keep_days: 400, smallest_group: 5 }
    }
}

impl StatisticsConfig {
    /// Whether the server can count by it; the sentence says why not.
    pub fn check(&self) -> Result<(), String> {
        if (1..=100).contains(&self.smallest_group) {
            return Ok(());
        }
        Err("smallest_group is between 1 and 100".to_owned())
    }
}

/// What statistics are made of.
pub struct StatisticsDeps {
    /// The world.
    pub world: World,
    /// The store.
    pub store: Store,
    /// The name of this server, for people without an address.
    pub server: OwnedServerName,
    /// Rooms.
    pub rooms: Rooms,
    /// Files.
    pub media: Media,
}

/// The statistics of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Statistics(Arc<Inner>);

struct Inner {
    deps: StatisticsDeps,
    config: Live<StatisticsConfig>,
}

impl Statistics {
    /// Statistics over these, of what happens from the first time on. [`Statistics::run`] counts.
    pub async fn open(deps: StatisticsDeps, config: StatisticsConfig) -> Result<Self, Error> {
        let opened = Self(Arc::new(Inner { deps, config: Live::new(config) }));
        opened.begin().await?;
        Ok(opened)
    }

    /// Goes on with another section; what it wants no more is forgotten within a minute.
    pub fn reconfigure(&self, config: StatisticsConfig) {
        self.0.config.set(config);
    }

    fn config(&self) -> Arc<StatisticsConfig> {
        self.0.config.get()
    }

    /// Takes hold of the log, or lets go of it and forgets what was counted.
    async fn begin(&self) -> Result<(), Error> {
        let (store, name) = (&self.0.deps.store, NAME.to_owned());
        let reader = store.read();
        let known = reader.get::<Cursors>(&name).await?;
        let mut tx = Tx::new();
        match (known, self.is_on()) {
            (None, true) => tx.put::<Cursors>(&name, &reader.position().0),
            (Some(_), false) => {
                sums::forget_all(&mut tx);
                tx.delete::<Cursors>(&name)
            }
            _ => return Ok(()),
        };
        drop(reader);
        Ok(store.commit(tx).await.map(drop)?)
    }

    fn is_on(&self) -> bool {
        self.config().keep_days > 0
    }

    fn server(&self) -> &ServerName {
        &self.0.deps.server
    }

    fn today(&self) -> u64 {
        self.0.deps.world.now() / DAY_MS
    }

    /// Counts until the world stops.
    pub async fn run(self) {
        let round = || async {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "statistics are gone on with in a while");
            }
        };
        self.0.deps.world.every(ROUND, round).await;
    }

    /// Counts what there is to count; at the beginning of a day, how things stand as well.
    async fn round(&self) -> Result<(), Error> {
        self.begin().await?;
        let mut left = if self.is_on() { TRIES } else { return Ok(()) };
        loop {
            match self.count_all().await {
                // Somebody who looks at the figures counts first, too.
                Err(Error::Store(chappe_store::Error::Conflict)) if left > 0 => left -= 1,
                other => return other,
            }
        }
    }

    async fn count_all(&self) -> Result<(), Error> {
        while !self.0.deps.world.is_stopping() && self.count_some().await? {}
        self.begin_day().await
    }

    /// Counts the next stretch of the log, once: the figures and the place in the log are one commit. Whether there may be more.
    async fn count_some(&self) -> Result<bool, Error> {
        let store = &self.0.deps.store;
        let (reader, name) = (store.read(), NAME.to_owned());
        let Some(from) = reader.get::<Cursors>(&name).await? else { return Ok(false) };
        let entries = reader.log_after(Position(from), BATCH).await?;
        let Some(last) = entries.last().map(|entry| entry.position) else { return Ok(false) };
        let (mut sums, mut tx) = (Sums::new(self.config().smallest_group), Tx::new());
        self.count(&reader, entries, &mut sums).await?;
        sums.draft(&reader, &mut tx).await?;
        tx.expect::<Cursors>(&name, Some(&from)).put::<Cursors>(&name, &last.0);
        drop(reader);
        store.commit(tx).await?;
        Ok(true)
    }

    async fn count(&self, reader: &Reader<'_>, entries: Vec<Entry>, sums: &mut Sums) -> Result<(), Error> {
        let mut people = People::default();
        let mut events: BTreeMap<RoomNid, Vec<EventNum>> = BTreeMap::new();
        for entry in entries {
            match entry.what {
                LogEntry::Event { room, event, local: true, .. } => {
                    events.entry(RoomNid(room)).or_default().push(EventNum(event));
                }
                LogEntry::Account { user, at, what } => {
                    self.add(reader, (&mut people, sums), user, (at, kinds::news(what))).await?;
                }
                _ => {}
            }
        }
        for (nid, nums) in events {
            for nums in nums.chunks(PAGE) {
                self.count_events(reader, (nid, nums), (&mut people, sums)).await?;
            }
        }
        Ok(())
    }

    /// Counts what was said in a room. What is no longer there is not counted.
    async fn count_events(
        &self,
        reader: &Reader<'_>,
        (nid, nums): (RoomNid, &[EventNum]),
        (people, sums): (&mut People, &mut Sums),
    ) -> Result<(), Error> {
        let view: View<'_> = match self.0.deps.rooms.view_at(reader.clone(), nid).await {
            Ok(view) => view,
            Err(chappe_rooms::Error::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut room = None;
        for event in view.load_kept(nums).await? {
            let Some(message) = kinds::message(&event.pdu) else { continue };
            let room = match room {
                Some(known) => known,
                None => *room.insert(kinds::room(&view).await?),
            };
            let at = u64::from(event.pdu.origin_server_ts().get());
            let kind = format!("message.{room}.{message}");
            self.add(reader, (people, sums), event.pdu.sender().to_owned(), (at, &kind)).await?;
        }
        Ok(())
    }

    /// Counts something of somebody who is a person of this server.
    async fn add(
        &self,
        reader: &Reader<'_>,
        (people, sums): (&mut People, &mut Sums),
        user: OwnedUserId,
        (at, kind): (u64, &str),
    ) -> Result<(), Error> {
        let (day, settled) = ((at / DAY_MS).min(self.today()), self.0.deps.world.settled_now());
        let is_old = |now: u64| (now / DAY_MS).saturating_sub(day) > u64::from(self.config().keep_days);
        if settled.is_some_and(is_old) {
            return Ok(());
        }
        if let Some(domain) = people.domain(reader, &user, self.server()).await? {
            sums.add((day, &domain, kind), &user, 1);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "statistics of {}", self.server())
    }
}
