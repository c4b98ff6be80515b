//! Several servers in one process under one seed: partitions, lost and doubled messages, delays, crashes. After
//! healing, all agree, nothing that was acknowledged is lost, and nobody spoke with a server that is not allowed.
#![expect(clippy::disallowed_methods, reason = "the number of seeds is read from the environment")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use chappe_bench::segment;
use chappe_kv::{Db, Memory, Position};
use chappe_server::{House, config};
use chappe_world::{Fake, FakeNet, Fate, World};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// Servers that may talk with each other; each has one user who stays and one who is pushed around.
const NAMES: [&str; 3] = ["one.sim", "two.sim", "three.sim"];
const STRANGER: &str = "stranger.sim";
const STEPS: usize = 60;

/// Splitmix: the same steps for the same seed, everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }
}

/// What the network does to requests.
struct Trouble {
    random: Random,
    /// Percent of requests that something happens to.
    percent: usize,
    parted: BTreeSet<(String, String)>,
    /// Who sent something to the server that is not allowed.
    strayed: BTreeSet<String>,
}

impl Trouble {
    fn fate(&mut self, from: &str, to: &str) -> Fate {
        if to == STRANGER && from != STRANGER {
            self.strayed.insert(from.to_owned());
        }
        if self.parted.contains(&(from.to_owned(), to.to_owned())) {
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
struct Host {
    name: &'static str,
    folder: TempDir,
    disk: Db,
    lives: u64,
    world: World,
    clients: Router,
}

impl Host {
    async fn boot(name: &'static str, seed: u64, net: &FakeNet) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Db::new(Memory::default());
        let (world, clients) = start(name, seed, net, &folder, &disk).await;
        Self { name, folder, disk, lives: 1, world, clients }
    }

    /// Ends the process between two instructions and starts it again on the same disk.
    async fn crash(&mut self, seed: u64, net: &FakeNet) {
        let before = *self.disk.visible().borrow();
        net.unroute(self.name);
        self.world.kill();
        self.lives += 1;
        let (world, clients) = start(self.name, seed ^ self.lives << 32, net, &self.folder, &self.disk).await;
        (self.world, self.clients) = (world, clients);
        assert!(*self.disk.visible().borrow() >= before, "positions went back");
    }

    async fn request(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
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
    let text = include_str!("simulation.toml")
        .replace("{name}", name)
        .replace("{data}", &folder.path().display().to_string());
    let config = config::parse("simulation.toml", &text, std::iter::empty()).expect("a valid configuration");
    let world = World::fake(Fake::new(name, seed, net));
    let house = House::build(&config, world.clone(), disk.clone()).await.expect("the house is built");
    house.start();
    let [clients, peers] = [0, 1].map(|n| house.router(&config.listeners[n].apis));
    net.route(name, &world, peers.into_service::<http_body_util::Full<bytes::Bytes>>());
    (world, clients)
}

#[derive(Clone)]
struct User {
    host: usize,
    id: String,
    token: String,
}

struct Sim {
    seed: u64,
    random: Random,
    net: FakeNet,
    trouble: Arc<Mutex<Trouble>>,
    hosts: Vec<Host>,
    /// The first of each host stays; the others come and go.
    users: Vec<User>,
    room: String,
    acknowledged: Vec<(usize, String)>,
    txn: u64,
}

impl Sim {
    async fn new(seed: u64) -> Self {
        let trouble = Arc::new(Mutex::new(Trouble {
            random: Random(!seed),
            percent: 0,
            parted: BTreeSet::new(),
            strayed: BTreeSet::new(),
        }));
        let net = FakeNet::new();
        let judge = Arc::clone(&trouble);
        net.judge(move |from, to, _| judge.lock().fate(from, to));
        let mut hosts = Vec::new();
        for (n, name) in NAMES.into_iter().chain([STRANGER]).enumerate() {
            hosts.push(Host::boot(name, seed.wrapping_mul(31) + n as u64, &net).await);
        }
        let mut sim = Self {
            seed,
            random: Random(seed),
            net,
            trouble,
            hosts,
            users: Vec::new(),
            room: String::new(),
            acknowledged: Vec::new(),
            txn: 0,
        };
        sim.settle_in().await;
        sim
    }

    /// Accounts, the room, and everybody in it, in calm weather.
    async fn settle_in(&mut self) {
        for (host, name) in [(0, "a"), (1, "b"), (2, "c"), (0, "x"), (1, "y"), (2, "z"), (3, "s")] {
            let body =
                json!({ "username": name, "password": "long enough", "auth": { "type": "m.login.dummy" } });
            let (status, answer) =
                self.hosts[host].request("POST", "/_matrix/client/v3/register", "", &body).await;
            assert_eq!(status, 200, "{answer}");
            let text = |key: &str| answer[key].as_str().expect("a string").to_owned();
            self.users.push(User { host, id: text("user_id"), token: text("access_token") });
        }
        let powers: BTreeMap<&str, u32> = self.users[..3].iter().map(|user| (&*user.id, 100)).collect();
        let body = json!({ "preset": "public_chat", "power_level_content_override": { "users": powers } });
        let (status, answer) = self.as_user(0, "POST", "createRoom", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["room_id"].as_str().expect("a room id").clone_into(&mut self.room);
        for user in 1..6 {
            let (status, answer) = self.as_user(user, "POST", &self.join_path(), &json!({})).await;
            assert_eq!(status, 200, "{} cannot join: {answer}", self.users[user].id);
        }
        let (status, _) = self.as_user(6, "POST", &self.join_path(), &json!({})).await;
        assert!((400..500).contains(&status) || status == 502, "the stranger came in: {status}");
    }

    fn join_path(&self) -> String {
        format!("join/{}?server_name={}", segment(&self.room), NAMES[0])
    }

    async fn as_user(&self, user: usize, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let user = &self.users[user];
        self.hosts[user.host].request(method, &format!("/_matrix/client/v3/{path}"), &user.token, body).await
    }

    /// One thing that happens.
    async fn step(&mut self) {
        let user = self.random.below(6);
        let moved = 3 + self.random.below(3);
        let room = format!("rooms/{}", segment(&self.room));
        let target = json!({ "user_id": self.users[moved].id });
        match self.random.below(100) {
            0..40 => self.say(user).await,
            40..52 => {
                let body = json!({ "topic": format!("topic {}", self.random.below(1000)) });
                self.set_state(user, "m.room.topic", &body).await;
            }
            52..60 => self.change_powers(moved).await,
            60..64 => drop(self.as_user(moved, "POST", &format!("{room}/leave"), &json!({})).await),
            64..72 => drop(self.as_user(moved, "POST", &self.join_path(), &json!({})).await),
            72..76 => drop(self.as_user(self.anchor(), "POST", &format!("{room}/kick"), &target).await),
            76..80 => drop(self.as_user(self.anchor(), "POST", &format!("{room}/ban"), &target).await),
            80..85 => drop(self.as_user(self.anchor(), "POST", &format!("{room}/unban"), &target).await),
            85..88 => {
                let rule = ["public", "invite"][self.random.below(2)];
                let body = json!({ "join_rule": rule });
                self.set_state(self.anchor(), "m.room.join_rules", &body).await;
            }
            88..96 => self.change_weather(),
            _ => {
                let (host, seed) = (self.random.below(3), self.seed);
                let net = self.net.clone();
                self.hosts[host].crash(seed, &net).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(3000) as u64)).await;
    }

    /// One of the users who stay, by the count of what was done so far.
    fn anchor(&self) -> usize {
        self.random.clone().below(3)
    }

    fn change_weather(&mut self) {
        let mut trouble = self.trouble.lock();
        trouble.percent = [0, 10, 30][self.random.below(3)];
        trouble.parted.clear();
        if self.random.below(2) == 0 {
            let alone = NAMES[self.random.below(3)];
            for other in NAMES.into_iter().filter(|other| *other != alone) {
                trouble.parted.insert((alone.to_owned(), other.to_owned()));
                trouble.parted.insert((other.to_owned(), alone.to_owned()));
            }
        }
    }

    async fn say(&mut self, user: usize) {
        self.txn += 1;
        let path = format!("rooms/{}/send/m.room.message/t{}", segment(&self.room), self.txn);
        let body = json!({ "msgtype": "m.text", "body": format!("word {}", self.txn) });
        let answer = self.as_user(user, "PUT", &path, &body).await;
        self.note(user, &answer);
    }

    async fn set_state(&mut self, user: usize, kind: &str, body: &Value) {
        let path = format!("rooms/{}/state/{kind}/", segment(&self.room));
        let answer = self.as_user(user, "PUT", &path, body).await;
        self.note(user, &answer);
    }

    /// Those who stay keep their power; one of the others gains or loses it.
    async fn change_powers(&mut self, moved: usize) {
        let anchor = self.anchor();
        let path = format!("rooms/{}/state/m.room.power_levels/", segment(&self.room));
        let (status, mut powers) = self.as_user(anchor, "GET", &path, &json!({})).await;
        if status == 200 {
            powers["users"][&self.users[moved].id] = json!(50 * self.random.below(2));
            self.set_state(anchor, "m.room.power_levels", &powers).await;
        }
    }

    fn note(&mut self, user: usize, (status, answer): &(u16, Value)) {
        assert!(*status < 500, "the server failed: {status} {answer}");
        if *status == 200 {
            let event = answer["event_id"].as_str().expect("an event id");
            self.acknowledged.push((self.users[user].host, event.to_owned()));
        }
    }

    /// The weather clears; everybody who stays says something; then time passes until all agree. Gives what they
    /// do not agree on after 40 minutes of calm.
    async fn heal(&mut self) -> Result<(), String> {
        {
            let mut trouble = self.trouble.lock();
            trouble.percent = 0;
            trouble.parted.clear();
        }
        let mut last = Ok(());
        for _ in 0..40 {
            for anchor in 0..3 {
                self.say(anchor).await;
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
            last = self.disagreement().await.map_or(Ok(()), Err);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// What the servers do not agree on, if anything.
    async fn disagreement(&self) -> Option<String> {
        let mut found = Vec::new();
        for anchor in 0..3 {
            let path = format!("rooms/{}/state", segment(&self.room));
            let (status, answer) = self.as_user(anchor, "GET", &path, &json!({})).await;
            if status != 200 {
                return Some(format!("{} cannot read the state: {status} {answer}", self.users[anchor].id));
            }
            let event = |event: &Value| {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                (text("type") + " " + &text("state_key"), text("event_id"))
            };
            found.push(answer.as_array()?.iter().map(event).collect::<BTreeMap<_, _>>());
        }
        let (first, others) = found.split_first()?;
        others.iter().find(|other| *other != first).map(|other| format!("{first:#?}\nis not\n{other:#?}"))
    }

    /// Every acknowledged event is still where it was acknowledged.
    async fn check_acknowledged(&self) {
        for (host, event) in &self.acknowledged {
            let path = format!("rooms/{}/event/{}", segment(&self.room), segment(event));
            let (status, answer) = self.as_user(*host, "GET", &path, &json!({})).await;
            assert_eq!(status, 200, "seed {}: {event} of {} is lost: {answer}", self.seed, NAMES[*host]);
        }
    }
}

/// Everything but agreement is asserted inside; gives what the servers do not agree on in the end.
async fn run(seed: u64) -> Result<(), String> {
    let mut sim = Sim::new(seed).await;
    for _ in 0..STEPS {
        sim.step().await;
    }
    let agreed = sim.heal().await;
    if agreed.is_ok() {
        sim.check_acknowledged().await;
    }
    assert!(sim.acknowledged.len() >= 10, "seed {seed}: only {} events", sim.acknowledged.len());
    let strayed = &sim.trouble.lock().strayed;
    assert!(strayed.is_empty(), "{strayed:?} sent something to {STRANGER}");
    for host in &sim.hosts {
        assert!(*host.disk.visible().borrow() > Position(0));
        host.world.kill();
    }
    agreed
}

/// Of 200 seeds, those in which servers still disagree: a known defect, see docs/simulation.md. May only fall.
const KNOWN_DISAGREEMENTS: usize = 8;

/// `SEEDS` says how many (200), `SEED` picks one to look at again, and then nothing is forgiven.
#[test]
fn servers_agree_after_trouble() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seeds, forgiven) = match number("SEED") {
        Some(seed) => (seed..seed + 1, 0),
        None => (0..number("SEEDS").unwrap_or(200), KNOWN_DISAGREEMENTS),
    };
    let mut disagreements = BTreeMap::new();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        if let Err(difference) = runtime.block_on(run(seed)) {
            disagreements.insert(seed, difference);
        }
    }
    let seeds: Vec<_> = disagreements.keys().collect();
    assert!(disagreements.len() <= forgiven, "seeds {seeds:?} end in disagreement: {disagreements:#?}");
}
