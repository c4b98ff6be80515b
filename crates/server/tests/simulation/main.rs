//! Several servers in one process under one seed: partitions, lost and doubled messages, delays, crashes. After
//! healing, all agree with each other and with the naive reference, nothing that was acknowledged is lost, and nobody
//! spoke with a server that is not allowed.
#![expect(clippy::disallowed_methods, reason = "the number of seeds is read from the environment")]

mod host;
mod reference;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chappe_bench::segment;
use chappe_kv::Position;
use chappe_world::FakeNet;
use parking_lot::Mutex;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::{
    host::{Host, NAMES, Random, STRANGER, Trouble},
    reference::{Copy, Reference, Size},
};

/// What a seed is about.
#[derive(Clone, Copy)]
struct Plan {
    /// How many servers share the room.
    servers: usize,
    version: &'static str,
    steps: usize,
    /// Mostly state events that conflict, close together, instead of a conversation.
    storm: bool,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let version = ["11", "12", "10"][usize::try_from(seed % 3).expect("small")];
        match seed % 10 {
            4 => Self { servers: 5, version, steps: 100, storm: true },
            6 => Self { servers: 7, version, steps: 100, storm: true },
            8 => Self { servers: 3, version, steps: 100, storm: true },
            9 if seed % 20 == 19 => Self { servers: 9, version, steps: 100, storm: true },
            _ => Self { servers: 3, version, steps: 60, storm: false },
        }
    }

    /// A storm of five servers or more, in every algorithm of state resolution.
    fn storm(seed: u64, steps: usize) -> Self {
        let small = |below: u64| usize::try_from(seed % below).expect("small");
        let version = ["11", "12", "1", "10", "12", "6"][small(6)];
        Self { servers: 5 + small(5), version, steps, storm: true }
    }
}

#[derive(Clone)]
struct User {
    host: usize,
    id: String,
    token: String,
}

struct Sim {
    seed: u64,
    plan: Plan,
    random: Random,
    net: FakeNet,
    trouble: Arc<Mutex<Trouble>>,
    /// Those that share the room, then the stranger.
    hosts: Vec<Host>,
    /// One of each host who stays, one of each who comes and goes, one of each who comes late, and the stranger's.
    users: Vec<User>,
    room: String,
    acknowledged: Vec<(usize, String)>,
    txn: u64,
}

impl Sim {
    async fn new(seed: u64, plan: Plan) -> Self {
        let trouble = Arc::new(Mutex::new(Trouble::new(!seed)));
        let net = FakeNet::new();
        let judge = Arc::clone(&trouble);
        net.judge(move |from, to, _| judge.lock().fate(from, to));
        let mut hosts = Vec::new();
        for (n, name) in NAMES[..plan.servers].iter().chain([&STRANGER]).enumerate() {
            hosts.push(Host::boot(name, seed.wrapping_mul(31) + n as u64, &net).await);
        }
        let mut sim = Self {
            seed,
            plan,
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

    /// Accounts, the room, and everybody in it but those who come late, in calm weather.
    async fn settle_in(&mut self) {
        let servers = self.plan.servers;
        let names = (0..servers).map(|host| (host, "stays"));
        let names = names.chain((0..servers).map(|host| (host, "moves")));
        let names = names.chain((0..servers).map(|host| (host, "late"))).chain([(servers, "stranger")]);
        for (host, name) in names {
            let body =
                json!({ "username": name, "password": "long enough", "auth": { "type": "m.login.dummy" } });
            let (status, answer) =
                self.hosts[host].request("POST", "/_matrix/client/v3/register", "", &body).await;
            assert_eq!(status, 200, "{answer}");
            let text = |key: &str| answer[key].as_str().expect("a string").to_owned();
            self.users.push(User { host, id: text("user_id"), token: text("access_token") });
        }
        // From version 12 on whoever made the room is above all levels and not among them.
        let first = usize::from(self.plan.version == "12");
        let powers: BTreeMap<&str, u32> =
            self.users[first..servers].iter().map(|user| (&*user.id, 100)).collect();
        let body = json!({
            "preset": "public_chat",
            "room_version": self.plan.version,
            // Whoever is in may set the topic, so that state comes to rest on a join that loses elsewhere.
            "power_level_content_override": {
                "users": powers,
                "events": { "m.room.topic": 0, "m.room.power_levels": 100 },
            },
        });
        let (status, answer) = self.as_user(0, "POST", "createRoom", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["room_id"].as_str().expect("a room id").clone_into(&mut self.room);
        for user in 1..2 * servers {
            let (status, answer) = self.as_user(user, "POST", &self.join_path(), &json!({})).await;
            assert_eq!(status, 200, "{} cannot join: {answer}", self.users[user].id);
        }
        let (status, _) = self.as_user(3 * servers, "POST", &self.join_path(), &json!({})).await;
        assert!((400..500).contains(&status) || status == 502, "the stranger came in: {status}");
    }

    fn join_path(&self) -> String {
        format!("join/{}?server_name={}", segment(&self.room), NAMES[0])
    }

    fn room_path(&self, rest: &str) -> String {
        format!("rooms/{}/{rest}", segment(&self.room))
    }

    async fn as_user(&self, user: usize, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let user = &self.users[user];
        self.hosts[user.host].request(method, &format!("/_matrix/client/v3/{path}"), &user.token, body).await
    }

    /// One thing that happens.
    async fn step(&mut self) {
        let servers = self.plan.servers;
        let user = self.random.below(2 * servers);
        let moved = servers + self.random.below(servers);
        // Of a hundred steps, how many are of which kind.
        let [say, topic, powers, leave, join, kick, ban, unban, rule, weather] = if self.plan.storm {
            [8, 6, 14, 8, 16, 8, 12, 8, 8, 8]
        } else {
            [40, 12, 8, 4, 8, 4, 4, 5, 3, 8]
        };
        let mut dice = self.random.below(100);
        let mut is = |share: usize| {
            let hit = dice < share;
            dice = dice.wrapping_sub(share);
            hit
        };
        if is(say) {
            self.say(user).await;
        } else if is(topic) {
            let body = json!({ "topic": format!("topic {}", self.random.below(1000)) });
            let user = self.random.below(3 * servers);
            self.set_state(user, "m.room.topic", &body).await;
        } else if is(powers) {
            self.change_powers(moved).await;
        } else if is(leave) {
            self.change_member(moved, "leave", None).await;
        } else if is(join) {
            let comes = servers + self.random.below(2 * servers);
            drop(self.as_user(comes, "POST", &self.join_path(), &json!({})).await);
        } else if is(kick) {
            self.change_member(self.mighty(), "kick", Some(moved)).await;
        } else if is(ban) {
            self.change_member(self.mighty(), "ban", Some(moved)).await;
        } else if is(unban) {
            self.change_member(self.mighty(), "unban", Some(moved)).await;
        } else if is(rule) {
            let rule = ["public", "invite"][self.random.below(2)];
            self.set_state(self.anchor(), "m.room.join_rules", &json!({ "join_rule": rule })).await;
        } else if is(weather) {
            self.change_weather();
        } else {
            let (host, seed) = (self.random.below(servers), self.seed);
            let net = self.net.clone();
            self.hosts[host].crash(seed, &net).await;
        }
        let longest = if self.plan.storm { 400 } else { 3000 };
        tokio::time::sleep(Duration::from_millis(self.random.below(longest) as u64)).await;
    }

    /// One of the users who stay, by the count of what was done so far.
    fn anchor(&self) -> usize {
        self.random.clone().below(self.plan.servers)
    }

    /// One who stays or, in a storm, one of those who may have been given power.
    fn mighty(&self) -> usize {
        let users = if self.plan.storm { 2 * self.plan.servers } else { self.plan.servers };
        self.random.clone().below(users)
    }

    fn change_weather(&mut self) {
        let servers = self.plan.servers;
        let mut trouble = self.trouble.lock();
        trouble.clear();
        trouble.percent = [0, 10, 30][self.random.below(3)];
        match self.random.below(4) {
            0 => drop(trouble.sides.insert(NAMES[self.random.below(servers)], 1)),
            1 => {
                let sides = 2 + self.random.below(2);
                trouble.sides =
                    NAMES[..servers].iter().map(|name| (*name, self.random.below(sides))).collect();
            }
            _ => {}
        }
    }

    async fn change_member(&self, by: usize, change: &str, target: Option<usize>) {
        let body = target.map_or(json!({}), |target| json!({ "user_id": self.users[target].id }));
        let (status, answer) = self.as_user(by, "POST", &self.room_path(change), &body).await;
        assert!(status < 500, "the server failed: {status} {answer}");
    }

    async fn say(&mut self, user: usize) {
        self.txn += 1;
        let path = self.room_path(&format!("send/m.room.message/t{}", self.txn));
        let body = json!({ "msgtype": "m.text", "body": format!("word {}", self.txn) });
        let answer = self.as_user(user, "PUT", &path, &body).await;
        self.note(user, &answer);
    }

    async fn set_state(&mut self, user: usize, kind: &str, body: &Value) {
        let path = self.room_path(&format!("state/{kind}/"));
        let answer = self.as_user(user, "PUT", &path, body).await;
        self.note(user, &answer);
    }

    /// Those who stay keep their power; one of the others gains or loses it.
    async fn change_powers(&mut self, moved: usize) {
        let anchor = self.anchor();
        let path = self.room_path("state/m.room.power_levels/");
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

    /// The weather clears; those who stay say something in turn; then time passes until all agree, for 40 minutes of
    /// calm at most.
    async fn heal(&mut self) -> Result<Vec<Copy>, String> {
        self.trouble.lock().clear();
        let mut last = Err("there was no time".to_owned());
        for round in 0..40 {
            self.say(round % self.plan.servers).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
            last = self.agreed().await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// What every server has on its disk, if all have the same heads and the same current state.
    async fn agreed(&self) -> Result<Vec<Copy>, String> {
        let room: OwnedRoomId = self.room.as_str().try_into().expect("a room id");
        let mut found: Vec<Copy> = Vec::new();
        for host in &self.hosts[..self.plan.servers] {
            let copy = Copy::read(&host.disk, &room).await;
            if let Some(first) = found.first()
                && (first.heads != copy.heads || first.current != copy.current)
            {
                let differing = reference::diff(&copy.current, &first.current);
                let heads = (&copy.heads, &first.heads);
                return Err(format!("{} and {}: {differing}, heads {heads:?}", host.name, NAMES[0]));
            }
            found.push(copy);
        }
        Ok(found)
    }

    /// Clients of all servers read the same state, byte for byte but for what is theirs alone.
    async fn check_clients(&self) {
        let mut found = BTreeSet::new();
        for anchor in 0..self.plan.servers {
            let (status, answer) = self.as_user(anchor, "GET", &self.room_path("state"), &json!({})).await;
            assert_eq!(status, 200, "seed {}: {answer}", self.seed);
            let mut events: Vec<Value> = answer.as_array().expect("events").clone();
            for event in &mut events {
                drop(event.as_object_mut().expect("an event").remove("unsigned"));
            }
            let mut events: Vec<String> = events.iter().map(Value::to_string).collect();
            events.sort();
            found.insert(events);
        }
        assert_eq!(found.len(), 1, "seed {}: {found:#?}", self.seed);
    }

    /// Every acknowledged event is still where it was acknowledged.
    async fn check_acknowledged(&self) {
        for (host, event) in &self.acknowledged {
            let path = self.room_path(&format!("event/{}", segment(event)));
            let (status, answer) = self.as_user(*host, "GET", &path, &json!({})).await;
            assert_eq!(status, 200, "seed {}: {event} of {} is lost: {answer}", self.seed, NAMES[*host]);
        }
    }
}

async fn run(seed: u64, plan: Plan) -> Result<Size, String> {
    let mut sim = Sim::new(seed, plan).await;
    for _ in 0..plan.steps {
        sim.step().await;
    }
    let copies = sim.heal().await?;
    sim.check_clients().await;
    sim.check_acknowledged().await;
    assert!(sim.acknowledged.len() >= 10, "seed {seed}: only {} events", sim.acknowledged.len());
    let strayed = &sim.trouble.lock().strayed;
    assert!(strayed.is_empty(), "{strayed:?} sent something to {STRANGER}");
    for host in &sim.hosts {
        assert!(*host.disk.visible().borrow() > Position(0));
        host.world.kill();
    }
    let book = Reference::of(&copies);
    let mut differences = Vec::new();
    for (name, copy) in NAMES.iter().zip(&copies) {
        differences.extend(book.differences(name, copy));
    }
    if differences.is_empty() { Ok(book.size()) } else { Err(differences.join("\n")) }
}

/// A seed in a runtime of its own, whose clock waits for nobody.
fn run_alone(seed: u64, plan: Plan) -> Result<Size, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run(seed, plan))
}

/// `SEEDS` says how many (200), `SEED` picks one to look at again, `STEPS` makes all of them storms of five servers or more
/// with so many steps. As many at a time as there are processors.
#[test]
fn servers_agree_after_trouble() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(200),
    };
    let steps = number("STEPS").map(|steps| usize::try_from(steps).expect("a number of steps"));
    let plan = |seed| steps.map_or_else(|| Plan::of(seed), |steps| Plan::storm(seed, steps));
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Size::default(), BTreeMap::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let result = run_alone(seed, plan(seed));
            let (total, disagreements) = &mut *found.lock();
            match result {
                Ok(size) => *total += size,
                Err(difference) => drop(disagreements.insert(seed, difference)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (total, disagreements) = found.into_inner();
    println!("seeds {seeds:?}: {total:?}");
    let seeds: Vec<_> = disagreements.keys().collect();
    assert!(disagreements.is_empty(), "seeds {seeds:?} end in disagreement: {disagreements:#?}");
}
