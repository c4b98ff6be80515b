//! Device lists of remote users: fetched whole when an update was missed, one fetch per user at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chappe_accounts::{Error, RemoteUpdate};
use chappe_rooms::PeerError;
use chappe_world::World;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use http::Method;
use parking_lot::Mutex;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, UInt, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde::Deserialize;

use crate::{Federation, places::Paces};

/// Lists fetched at once, and of one server.
const PLACES: usize = 16;
const SHARE: usize = 4;
/// Devices of a user that are taken.
const MAX_DEVICES: usize = 2_000;
/// How often lists that are still to be fetched are looked for.
const ROUND: Duration = Duration::from_mins(10);
/// How many of them are looked at at once, and for how long one server's are fetched then.
const PAGE: usize = 100;
const TURN: Duration = Duration::from_mins(2);
/// How often a list is asked for that changes meanwhile, and how long after it did: updates come in swarms.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

type Fetch = Shared<BoxFuture<'static, Result<(), Arc<PeerError>>>>;

struct UnderWay {
    fetch: Fetch,
    /// Whether news came since the list was asked for: the answer may have been written before.
    again: bool,
}

/// Fetches under way.
pub(crate) struct Devices {
    under_way: Mutex<HashMap<OwnedUserId, UnderWay>>,
    paces: Paces,
}

/// One of them, for as long as it lasts, however it ends.
struct Fetching<'a> {
    devices: &'a Devices,
    user: &'a UserId,
    has_ended: bool,
}

impl Fetching<'_> {
    /// Ends it if there are no news.
    fn ends(&mut self) -> bool {
        let mut under_way = self.devices.under_way.lock();
        self.has_ended = under_way.get(self.user).is_none_or(|under_way| !under_way.again);
        if self.has_ended {
            under_way.remove(self.user);
        }
        self.has_ended
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        // By now it may be another one's.
        if !self.has_ended {
            self.devices.under_way.lock().remove(self.user);
        }
    }
}

/// `GET /user/devices`, read leniently: devices without keys are listed by some servers.
#[derive(Deserialize)]
struct Listed {
    user_id: OwnedUserId,
    stream_id: UInt,
    #[serde(default)]
    devices: Vec<ListedDevice>,
    master_key: Option<Raw<CrossSigningKey>>,
    self_signing_key: Option<Raw<CrossSigningKey>>,
}

#[derive(Deserialize)]
struct ListedDevice {
    device_id: OwnedDeviceId,
    keys: Option<Raw<DeviceKeys>>,
    device_display_name: Option<String>,
}

impl Devices {
    pub(crate) fn new(world: World) -> Self {
        Self { under_way: Mutex::default(), paces: Paces::new(world, PLACES, SHARE) }
    }

    /// Fetches a user's list in the background, as it is from now on.
    pub(crate) fn resync_soon(&self, federation: &Federation, user: &UserId) {
        self.note_news(user);
        drop(self.fetch(federation, user));
    }

    /// Fetches a user's list; whoever asks for the same meanwhile waits for the same fetch.
    pub(crate) async fn resync(&self, federation: &Federation, user: &UserId) -> Result<(), Arc<PeerError>> {
        self.fetch(federation, user).await
    }

    /// The devices or keys of a user changed: a fetch under way does not end with what was asked for before.
    pub(crate) fn note_news(&self, user: &UserId) {
        if let Some(under_way) = self.under_way.lock().get_mut(user) {
            under_way.again = true;
        }
    }

    /// The list is asked for now.
    fn begins(&self, user: &UserId) {
        if let Some(under_way) = self.under_way.lock().get_mut(user) {
            under_way.again = false;
        }
    }

    fn has_news(&self, user: &UserId) -> bool {
        self.under_way.lock().get(user).is_some_and(|under_way| under_way.again)
    }

    fn fetch(&self, federation: &Federation, user: &UserId) -> Fetch {
        let mut under_way = self.under_way.lock();
        if let Some(UnderWay { fetch, .. }) = under_way.get(user) {
            return fetch.clone();
        }
        let (fetching, owned) = (federation.clone(), user.to_owned());
        let stop = federation.network().world().tasks().stop_signal();
        let work = async move {
            let result = stop.run_until_cancelled(fetching.fetch_until_quiet(&owned)).await;
            let result = result.unwrap_or_else(|| Err(malformed("stopping"))).map_err(Arc::new);
            if let Err(error) = &result {
                tracing::info!(user = %owned, %error, "a device list was not fetched");
            }
            result
        };
        // A task of its own: it ends, and gives its place away, whether or not anybody still waits for it.
        let ended = federation.network().world().spawn("device list", work);
        let fetch = ended.map(|ended| ended.unwrap_or_else(|_| Err(Arc::new(malformed("stopping")))));
        let fetch = fetch.boxed().shared();
        under_way.insert(user.to_owned(), UnderWay { fetch: fetch.clone(), again: false });
        fetch
    }
}

fn malformed(why: &str) -> PeerError {
    PeerError::Malformed(why.to_owned())
}

impl Federation {
    /// Fetches a list until nothing changed meanwhile.
    async fn fetch_until_quiet(&self, user: &UserId) -> Result<(), PeerError> {
        let mut fetching = Fetching { devices: &self.0.devices, user, has_ended: false };
        let mut attempts = 1;
        let mut result = self.fetch_devices(user).await;
        while result.is_ok() && !fetching.ends() {
            if attempts == ATTEMPTS {
                result = Err(malformed("it changes all the time"));
                break;
            }
            self.network().world().sleep(PAUSE).await;
            attempts += 1;
            result = self.fetch_devices(user).await;
        }
        // An answer that is too old may have been taken where nothing was kept: news write nothing then of who just came.
        if result.is_err()
            && attempts > 1
            && let Err(error) = self.0.accounts.mark_stale(user).await
        {
            tracing::warn!(%user, %error, "a device list is believed that is too old");
        }
        result
    }

    async fn fetch_devices(&self, user: &UserId) -> Result<(), PeerError> {
        let (devices, server) = (&self.0.devices, user.server_name());
        let place = devices.paces.take(server).await;
        let (longest, asking) = (self.network().config().timeout(), self.ask_for_devices(user));
        let answer = devices.paces.spend(place, server, longest, asking).await;
        let (answer, _) = answer.ok_or_else(|| PeerError::Unreachable(server.to_owned()))?;
        let listed: Listed =
            serde_json::from_slice(&answer?).map_err(|error| malformed(&error.to_string()))?;
        if listed.user_id != user || listed.devices.len() > MAX_DEVICES {
            return Err(malformed("not the device list of this user"));
        }
        let device =
            |device: ListedDevice| (device.device_id, Some((device.keys, device.device_display_name)));
        let update = RemoteUpdate {
            stream_id: Some(listed.stream_id.into()),
            devices: listed.devices.into_iter().map(device).collect(),
            complete: true,
            master: listed.master_key,
            self_signing: listed.self_signing_key,
        };
        let kept = async {
            // What was written before the news says nothing of them: the list stays to be fetched.
            let holds = || !devices.has_news(user);
            if self.0.accounts.update_remote_while(user, update, holds).await? {
                // The user may have left the last common room meanwhile: then changes are not heard of.
                self.is_unmet(user).await?;
            }
            Ok::<_, Error>(())
        };
        kept.await.map_err(|error| malformed(&error.to_string()))
    }

    async fn ask_for_devices(&self, user: &UserId) -> Result<Bytes, PeerError> {
        let network = self.network();
        let uri = format!("/_matrix/federation/v1/user/devices/{}", crate::network::segment(user.as_str()));
        let http = network.signed(user.server_name(), Method::GET, &uri, Bytes::new())?;
        self.0.devices.begins(user);
        let answer = network.exchange(user.server_name(), http, network.brief()).await?;
        Ok(answer.into_body())
    }

    /// Fetches the lists that are still to be fetched, again and again.
    pub(crate) async fn keep_devices(self) {
        let world = self.network().world().clone();
        while !world.is_stopping() {
            let mut after: Option<OwnedUserId> = None;
            loop {
                let page = self.0.accounts.stale_lists(after.as_deref(), PAGE).await.unwrap_or_default();
                let Some(last) = page.last().cloned().filter(|_| !world.is_stopping()) else { break };
                let mut servers: BTreeMap<OwnedServerName, Vec<OwnedUserId>> = BTreeMap::new();
                for user in page {
                    servers.entry(user.server_name().to_owned()).or_default().push(user);
                }
                // Nobody waits long for those of a slow server: what is left of them comes in the next round.
                let turns = servers.into_values().map(|users| world.timeout(TURN, self.fetch_in_turn(users)));
                join_all(turns).await;
                after = Some(last);
            }
            tokio::select! {
                () = world.sleep(ROUND) => {}
                () = world.stopping() => {}
            }
        }
    }

    /// Fetches lists of one server, one after the other.
    async fn fetch_in_turn(&self, users: Vec<OwnedUserId>) {
        for user in users {
            if self.network().world().is_stopping() {
                return;
            }
            if matches!(self.is_unmet(&user).await, Ok(true)) {
                self.0.accounts.end_resync(&user).await.ok();
            } else {
                self.0.devices.resync(self, &user).await.ok();
            }
        }
    }
}
