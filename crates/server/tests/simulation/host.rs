//! Servers with disks that outlive their processes, and the network between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{Router, body::Body};
use chappe_kv::{Db, Memory};
use chappe_server::{House, config};
use chappe_world::{Fake, FakeNet, Fate, World};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// Servers that may talk with each other; a seed takes the first few.
pub(crate) const NAMES: [&str; 9] = [
    "one.sim",
    "two.sim",
    "three.sim",
    "four.sim",
    "five.sim",
    "six.sim",
    "seven.sim",
    "eight.sim",
    "nine.sim",
];
pub(crate) const STRANGER: &str = "stranger.sim";

/// Splitmix: the same steps for the same seed, everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }
}

/// What the network does to requests.
pub(crate) struct Trouble {
    random: Random,
    /// Percent of requests that something happens to.
    pub(crate) percent: usize,
    /// On which side of the partition a server is; those not named are on side 0.
    pub(crate) sides: BTreeMap<&'static str, usize>,
    /// Who sent something to the server that is not allowed.
    pub(crate) strayed: BTreeSet<String>,
}

impl Trouble {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), percent: 0, sides: BTreeMap::new(), strayed: BTreeSet::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.percent = 0;
        self.sides.clear();
    }

    pub(crate) fn fate(&mut self, from: &str, to: &str) -> Fate {
        if to == STRANGER && from != STRANGER {
            self.strayed.insert(from.to_owned());
        }
        let side = |name: &str| self.sides.get(name).copied().unwrap_or_default();
        if side(from) != side(to) {
            return Fate::Unreachable;
        }
        if self.random.below(100) >= self.percent {
            return Fate::Deliver;
        }
        match self.random.below(4) {
            0 => Fate::Lose,
            1 => Fate::LoseAnswer,
            2 => Fate::Duplicate,
            _ => Fate::Delay(Duration::from_millis(self.random.below(5000) as u64)),
        }
    }
}

/// One server. Its disk outlives its process.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    folder: TempDir,
    pub(crate) disk: Db,
    lives: u64,
    pub(crate) world: World,
    clients: Router,
}

impl Host {
    pub(crate) async fn boot(name: &'static str, seed: u64, net: &FakeNet) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Db::new(Memory::default());
        let (world, clients) = start(name, seed, net, &folder, &disk).await;
        Self { name, folder, disk, lives: 1, world, clients }
    }

    /// Ends the process between two instructions and starts it again on the same disk.
    pub(crate) async fn crash(&mut self, seed: u64, net: &FakeNet) {
        let before = *self.disk.visible().borrow();
        net.unroute(self.name);
        self.world.kill();
        self.lives += 1;
        let (world, clients) = start(self.name, seed ^ self.lives << 32, net, &self.folder, &self.disk).await;
        (self.world, self.clients) = (world, clients);
        assert!(*self.disk.visible().borrow() >= before, "positions went back");
    }

    pub(crate) async fn request(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(if method == "GET" { String::new() } else { body.to_string() }))
            .expect("a well-formed request");
        let response = self.clients.clone().oneshot(request).await.expect("the router answers");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

async fn start(name: &str, seed: u64, net: &FakeNet, folder: &TempDir, disk: &Db) -> (World, Router) {
    let text = include_str!("host.toml")
        .replace("{name}", name)
        .replace("{data}", &folder.path().display().to_string());
    let config = config::parse("host.toml", &text, std::iter::empty()).expect("a valid configuration");
    let world = World::fake(Fake::new(name, seed, net));
    let house = House::build(&config, world.clone(), disk.clone()).await.expect("the house is built");
    house.start();
    let [clients, peers] = [0, 1].map(|n| house.router(&config.listeners[n].apis));
    net.route(name, &world, peers.into_service::<http_body_util::Full<bytes::Bytes>>());
    (world, clients)
}
