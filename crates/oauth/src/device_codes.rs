//! Devices without a browser that wait for their user (RFC 8628).
//!
//! They are in memory, with an end and a bound on their number: whoever asks for a code has proved nothing, and must not be
//! able to fill the disk. After a restart such a device is asked to begin again.

use std::collections::{HashMap, VecDeque};

use chappe_world::World;
use parking_lot::Mutex;
use ruma::OwnedUserId;

use crate::{
    error::{Error, Result},
    scope::Scope,
    secrets::sha256,
};

/// How long a code lives, in milliseconds.
pub(crate) const LIFETIME: u64 = 900_000;
/// How long a client waits between two polls, in milliseconds.
pub(crate) const INTERVAL: u64 = 5_000;
/// What the interval grows by when it does not (RFC 8628, section 3.5), in milliseconds.
const MORE: u64 = 5_000;
/// Kept at most; beyond, the oldest end.
const MOST: usize = 20_000;
/// No vowels, so that no word comes of it, and nothing that looks like something else.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Characters of a user code: 34 bits, guesses are counted.
const LENGTH: usize = 8;

/// Who granted, and what their log-ins hung on then: once that is something else, the grant has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grantor {
    pub(crate) user: OwnedUserId,
    pub(crate) mark: [u8; 32],
    /// The log-in of the browser in which they did, by its hash.
    pub(crate) browser: Option<[u8; 32]>,
}

/// What has been decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Pending,
    Granted(Grantor),
    Denied,
}

/// What a device asks for.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The client, by its digest.
    pub(crate) client: [u8; 32],
    pub(crate) scope: Scope,
}

struct Device {
    waiting: Waiting,
    user_code: String,
    ends: u64,
    next_poll: u64,
    interval: u64,
    decision: Decision,
}

#[derive(Default)]
struct Table {
    /// By hash of the device code.
    devices: HashMap<[u8; 32], Device>,
    by_user_code: HashMap<String, [u8; 32]>,
    /// In the order of opening, which is that of ending.
    order: VecDeque<(u64, [u8; 32])>,
}

impl Table {
    fn remove(&mut self, hash: &[u8; 32]) -> Option<Device> {
        let device = self.devices.remove(hash)?;
        self.by_user_code.remove(&device.user_code);
        Some(device)
    }

    fn make_room(&mut self, now: u64) {
        while let Some((ends, hash)) = self.order.front().copied() {
            if ends > now && self.order.len() < MOST {
                break;
            }
            self.order.pop_front();
            self.remove(&hash);
        }
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct DeviceCodes(Mutex<Table>);

impl DeviceCodes {
    /// Opens a wait; gives the device code and the user code.
    pub(crate) fn open(&self, world: &World, waiting: Waiting) -> (String, String) {
        let (code, now) = (format!("chd_{}", world.token(43)), world.now());
        let (hash, ends) = (sha256(&code), now.saturating_add(LIFETIME));
        let mut table = self.0.lock();
        table.make_room(now);
        let mut user_code = draw(world);
        while table.by_user_code.contains_key(&user_code) {
            user_code = draw(world);
        }
        table.by_user_code.insert(user_code.clone(), hash);
        table.order.push_back((ends, hash));
        let device = Device {
            waiting,
            user_code: user_code.clone(),
            ends,
            next_poll: 0,
            interval: INTERVAL,
            decision: Decision::Pending,
        };
        table.devices.insert(hash, device);
        (code, user_code)
    }

    /// The client asks whether its user has decided; what was granted is given once.
    pub(crate) fn poll(&self, now: u64, client: &[u8; 32], code: &str) -> Result<(Grantor, Scope)> {
        let hash = sha256(code);
        let mut table = self.0.lock();
        let Some(device) = table.devices.get_mut(&hash).filter(|device| device.waiting.client == *client)
        else {
            return Err(Error::InvalidGrant("there is no such device code"));
        };
        if device.ends <= now {
            return Err(Error::ExpiredToken);
        }
        let early = now < device.next_poll;
        if early {
            device.interval += MORE;
        }
        device.next_poll = now.saturating_add(device.interval);
        match &device.decision {
            _ if early => Err(Error::SlowDown),
            Decision::Pending => Err(Error::AuthorizationPending),
            Decision::Denied => {
                table.remove(&hash);
                Err(Error::AccessDenied)
            }
            Decision::Granted(grantor) => {
                let grantor = grantor.clone();
                let device = table.remove(&hash).ok_or(Error::Internal)?;
                Ok((grantor, device.waiting.scope))
            }
        }
    }

    /// What waits behind a user code, however it was typed.
    pub(crate) fn find(&self, now: u64, user_code: &str) -> Option<Waiting> {
        let table = self.0.lock();
        let hash = table.by_user_code.get(&plain(user_code))?;
        let device = table.devices.get(hash)?;
        (device.ends > now && device.decision == Decision::Pending).then(|| device.waiting.clone())
    }

    /// Decides, once: for a user, or against. Whether there was anything to decide.
    pub(crate) fn decide(&self, now: u64, user_code: &str, by: Option<Grantor>) -> bool {
        let mut table = self.0.lock();
        let Some(hash) = table.by_user_code.get(&plain(user_code)).copied() else { return false };
        let Some(device) = table.devices.get_mut(&hash) else { return false };
        if device.ends <= now || device.decision != Decision::Pending {
            return false;
        }
        device.decision = by.map_or(Decision::Denied, Decision::Granted);
        true
    }
}

fn draw(world: &World) -> String {
    let letter = |_| {
        let index = usize::try_from(world.below(ALPHABET.len() as u64)).unwrap_or(0);
        char::from(ALPHABET[index])
    };
    (0..LENGTH).map(letter).collect()
}

/// As it is shown: two halves.
pub(crate) fn shown(user_code: &str) -> String {
    let (first, second) = user_code.split_at(user_code.len() / 2);
    format!("{first}-{second}")
}

/// As it is kept.
fn plain(typed: &str) -> String {
    let letters = typed.chars().filter(char::is_ascii_alphabetic).take(LENGTH + 1);
    letters.map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use chappe_world::{Fake, FakeNet, World};
    use ruma::owned_user_id;

    use super::{DeviceCodes, Grantor, INTERVAL, LIFETIME, Waiting, shown};
    use crate::scope::Scope;

    const CLIENT: [u8; 32] = [1; 32];

    fn opened() -> (DeviceCodes, World, String, String) {
        let world = World::fake(Fake::new("a.test", 1, &FakeNet::default()));
        let codes = DeviceCodes::default();
        let scope = Scope::parse("urn:matrix:client:api:* urn:matrix:client:device:A").unwrap();
        let (device, user) = codes.open(&world, Waiting { client: CLIENT, scope });
        (codes, world, device, user)
    }

    fn alice() -> Grantor {
        Grantor { user: owned_user_id!("@alice:a.test"), mark: [1; 32], browser: None }
    }

    #[tokio::test]
    async fn what_is_granted_is_given_once_and_to_its_client() {
        let (codes, world, device, user) = opened();
        let now = world.now();
        let poll = |now, client| codes.poll(now, client, &device).map_err(|error| error.code());
        assert_eq!(poll(now, &CLIENT).unwrap_err(), "authorization_pending");
        let typed = shown(&user).to_lowercase().replace('-', " ");
        assert!(codes.find(now, &typed).is_some() && codes.find(now, "BBBB-BBBB").is_none());
        assert!(codes.decide(now, &typed, Some(alice())));
        assert!(!codes.decide(now, &typed, None), "it is decided");
        assert!(codes.find(now, &typed).is_none());
        assert_eq!(poll(now + INTERVAL, &[2; 32]).unwrap_err(), "invalid_grant");
        assert_eq!(poll(now + INTERVAL, &CLIENT).unwrap().0, alice());
        assert_eq!(poll(now + 2 * INTERVAL, &CLIENT).unwrap_err(), "invalid_grant");
    }

    #[tokio::test]
    async fn impatience_makes_the_wait_longer() {
        let (codes, world, device, user) = opened();
        let now = world.now();
        let poll = |after| codes.poll(now + after, &CLIENT, &device).map(drop).map_err(|error| error.code());
        assert_eq!(poll(0), Err("authorization_pending"));
        assert_eq!(poll(1), Err("slow_down"));
        assert!(codes.decide(now, &user, Some(alice())));
        assert_eq!(poll(INTERVAL), Err("slow_down"), "the interval has grown, though it is granted");
        assert_eq!(poll(10 * INTERVAL), Ok(()));
    }

    #[tokio::test]
    async fn refused_and_forgotten_devices_are_told() {
        let (codes, world, device, user) = opened();
        let now = world.now();
        assert!(codes.decide(now, &user, None));
        assert_eq!(codes.poll(now, &CLIENT, &device).unwrap_err().code(), "access_denied");
        let (codes, world, device, user) = opened();
        let late = world.now() + LIFETIME;
        assert!(codes.find(late, &user).is_none() && !codes.decide(late, &user, Some(alice())));
        assert_eq!(codes.poll(late, &CLIENT, &device).unwrap_err().code(), "expired_token");
    }
}
