//! Device lists of remote users: fetched whole when an update was missed, one fetch per user at a time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chappe_accounts::RemoteUpdate;
use chappe_rooms::PeerError;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::Method;
use parking_lot::Mutex;
use ruma::{
    OwnedDeviceId, OwnedUserId, UInt, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::Federation;

/// Lists fetched at once.
const PLACES: usize = 16;
/// Devices of a user that are taken.
const MAX_DEVICES: usize = 2_000;
/// How often lists that are still to be fetched are looked for.
const ROUND: Duration = Duration::from_mins(10);
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
    places: Semaphore,
}

impl Default for Devices {
    fn default() -> Self {
        Self { under_way: Mutex::default(), places: Semaphore::new(PLACES) }
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
    /// Fetches a user's list in the background, as it is from now on.
    pub(crate) fn resync_soon(&self, federation: &Federation, user: &UserId) {
        self.note_news(user);
        let fetch = self.fetch(federation, user);
        federation.network().world().spawn("device list", fetch);
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

    /// Ends a fetch if there are no news.
    fn ends(&self, user: &UserId) -> bool {
        let mut under_way = self.under_way.lock();
        let ends = under_way.get(user).is_none_or(|under_way| !under_way.again);
        if ends {
            under_way.remove(user);
        }
        ends
    }

    fn fetch(&self, federation: &Federation, user: &UserId) -> Fetch {
        let mut under_way = self.under_way.lock();
        if let Some(UnderWay { fetch, .. }) = under_way.get(user) {
            return fetch.clone();
        }
        let (federation, owned) = (federation.clone(), user.to_owned());
        let fetch = async move {
            let result = federation.fetch_until_quiet(&owned).await.map_err(Arc::new);
            if let Err(error) = &result {
                tracing::info!(user = %owned, %error, "a device list was not fetched");
            }
            result
        };
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
        let devices = &self.0.devices;
        let mut attempts = 1;
        let mut result = self.fetch_devices(user).await;
        while result.is_ok() && !devices.ends(user) {
            if attempts == ATTEMPTS {
                result = Err(malformed("it changes all the time"));
                break;
            }
            self.network().world().sleep(PAUSE).await;
            attempts += 1;
            result = self.fetch_devices(user).await;
        }
        if result.is_err() {
            // An answer that is too old may have been taken for the list.
            if attempts > 1
                && let Err(error) = self.0.accounts.mark_stale(user).await
            {
                tracing::warn!(%user, %error, "a device list is believed that is too old");
            }
            devices.under_way.lock().remove(user);
        }
        result
    }

    async fn fetch_devices(&self, user: &UserId) -> Result<(), PeerError> {
        let Ok(_place) = self.0.devices.places.acquire().await else { return Err(malformed("stopping")) };
        let network = self.network();
        let uri = format!("/_matrix/federation/v1/user/devices/{}", crate::network::segment(user.as_str()));
        let http = network.signed(user.server_name(), Method::GET, &uri, bytes::Bytes::new())?;
        self.0.devices.begins(user);
        let answer = network.exchange(user.server_name(), http, network.brief()).await?;
        if self.0.devices.has_news(user) {
            return Ok(());
        }
        let listed: Listed =
            serde_json::from_slice(answer.body()).map_err(|error| malformed(&error.to_string()))?;
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
            self.0.accounts.update_remote(user, update).await?;
            // The user may have left the last common room meanwhile: then changes are not heard of.
            self.is_unmet(user).await
        };
        kept.await.map(drop).map_err(|error| malformed(&error.to_string()))
    }

    /// Fetches the lists that are still to be fetched, again and again.
    pub(crate) async fn keep_devices(self) {
        let world = self.network().world().clone();
        while !world.is_stopping() {
            let mut after: Option<OwnedUserId> = None;
            loop {
                let page = self.0.accounts.stale_lists(after.as_deref(), 100).await.unwrap_or_default();
                let Some(last) = page.last().cloned() else { break };
                for user in page {
                    if world.is_stopping() {
                        return;
                    }
                    if matches!(self.is_unmet(&user).await, Ok(true)) {
                        self.0.accounts.end_resync(&user).await.ok();
                    } else {
                        self.0.devices.resync(&self, &user).await.ok();
                    }
                }
                after = Some(last);
            }
            tokio::select! {
                () = world.sleep(ROUND) => {}
                () = world.stopping() => {}
            }
        }
    }
}
