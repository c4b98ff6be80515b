//! The sessions of user-interactive authentication.

use std::collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry};

use chappe_world::World;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, api::client::uiaa::AuthType};

use crate::{
    Error,
    uia::{Operation, Proved, ProvedEmail},
};

/// Sessions kept at most; beyond, the oldest end.
const MOST: usize = 50_000;
/// Sessions of one user, and of nobody from one address; beyond, that user's or address's oldest ends.
const OF_USER: usize = 20;
const OF_ADDRESS: usize = 200;
/// Wrong proofs that end a session.
const PATIENCE: u32 = 10;

/// What a session has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) completed: Vec<AuthType>,
    pub(crate) email: Option<ProvedEmail>,
    pub(crate) registration_token: Option<String>,
}

/// Wrong passwords of one user in an hour; beyond, none is looked at.
const GUESSES: u32 = 30;

/// Wrong passwords given in user-interactive authentication, over all sessions: whoever holds a stolen access token has
/// as many sessions as they like.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<(u64, HashMap<OwnedUserId, u32>)>);

impl Guesses {
    /// Whether another password of the user may be looked at.
    pub(crate) fn may(&self, user: &UserId, now: u64) -> bool {
        let mut guard = self.0.lock();
        let (hour, wrong) = &mut *guard;
        if *hour != now / 3_600_000 {
            (*hour, *wrong) = (now / 3_600_000, HashMap::new());
        }
        wrong.get(user).is_none_or(|count| *count < GUESSES)
    }

    /// Counts a wrong one.
    pub(crate) fn wrong(&self, user: &UserId) {
        *self.0.lock().1.entry(user.to_owned()).or_default() += 1;
    }
}

/// Whose a session is: a user's, or where nobody is logged in that of an address.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Opener {
    User(OwnedUserId),
    Address(String),
}

struct Session {
    opener: Opener,
    operation: Operation,
    ends: u64,
    failures: u32,
    progress: Progress,
}

impl Session {
    /// Whether it lives and is not approved yet.
    fn waits(&self, now: u64) -> bool {
        self.ends > now && !self.progress.completed.contains(&AuthType::OAuth)
    }
}

#[derive(Default)]
struct Table {
    sessions: HashMap<String, Session>,
    /// The last session of each operation.
    last: HashMap<Operation, String>,
    /// Those of each opener, the oldest first.
    opened: HashMap<Opener, VecDeque<String>>,
    /// Those that hold a registration token.
    with_token: HashMap<String, BTreeSet<String>>,
    /// In the order of ending.
    order: BTreeSet<(u64, String)>,
}

impl Table {
    fn remove(&mut self, id: &str) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        if self.last.get(&session.operation).is_some_and(|last| last == id) {
            self.last.remove(&session.operation);
        }
        self.order.remove(&(session.ends, id.to_owned()));
        if let Entry::Occupied(mut opened) = self.opened.entry(session.opener.clone()) {
            opened.get_mut().retain(|other| other != id);
            if opened.get().is_empty() {
                opened.remove();
            }
        }
        if let Some(token) = session.progress.registration_token.clone() {
            self.let_go(&token, id);
        }
        Some(session)
    }

    fn let_go(&mut self, token: &str, id: &str) {
        let Some(holders) = self.with_token.get_mut(token) else { return };
        holders.remove(id);
        if holders.is_empty() {
            self.with_token.remove(token);
        }
    }

    /// The sessions of a user.
    fn of(&self, user: &UserId) -> Vec<String> {
        let opened = self.opened.get(&Opener::User(user.to_owned()));
        opened.into_iter().flatten().cloned().collect()
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Table>);

impl Sessions {
    /// Opens a session; gives its id. `address` is where the request came from, for operations of nobody.
    pub(crate) fn open(&self, world: &World, lifetime: u64, operation: &Operation, address: &str) -> String {
        let (id, now) = (world.token(32), world.now());
        let ends = now.saturating_add(lifetime);
        let (opener, most) = match operation.user() {
            Some(user) => (Opener::User(user.to_owned()), OF_USER),
            None => (Opener::Address(address.to_owned()), OF_ADDRESS),
        };
        let mut table = self.0.lock();
        if let Some(opened) = table.opened.get(&opener).filter(|opened| opened.len() >= most)
            && let Some(oldest) = opened.front().cloned()
        {
            table.remove(&oldest);
        }
        while let Some((end, oldest)) = table.order.first() {
            if *end > now && table.sessions.len() < MOST {
                break;
            }
            let oldest = oldest.clone();
            table.remove(&oldest);
        }
        table.opened.entry(opener.clone()).or_default().push_back(id.clone());
        let (operation, progress) = (operation.clone(), Progress::default());
        table.last.insert(operation.clone(), id.clone());
        table.order.insert((ends, id.clone()));
        table.sessions.insert(id.clone(), Session { opener, operation, ends, failures: 0, progress });
        id
    }

    /// Whether a session lives and is for this operation.
    pub(crate) fn check(&self, now: u64, id: &str, operation: &Operation) -> Result<(), Error> {
        match self.0.lock().sessions.get(id) {
            Some(session) if session.ends > now => match_operation(session, operation),
            _ => Err(Error::NotFound("session")),
        }
    }

    /// What a live session is for.
    pub(crate) fn operation(&self, now: u64, id: &str) -> Option<Operation> {
        let table = self.0.lock();
        table.sessions.get(id).filter(|session| session.ends > now).map(|session| session.operation.clone())
    }

    /// Whether a stage of a session is completed.
    pub(crate) fn has(&self, id: &str, stage: &AuthType) -> bool {
        let table = self.0.lock();
        table.sessions.get(id).is_some_and(|session| session.progress.completed.contains(stage))
    }

    /// Notes what a stage proved.
    pub(crate) fn prove(&self, id: &str, stage: AuthType, proved: Proved) {
        let mut table = self.0.lock();
        let Some(session) = table.sessions.get_mut(id) else { return };
        let progress = &mut session.progress;
        if !progress.completed.contains(&stage) {
            progress.completed.push(stage);
        }
        match proved {
            Proved::Plain => {}
            Proved::Email(email) => progress.email = Some(email),
            Proved::RegistrationToken(token) => {
                if let Some(before) = progress.registration_token.replace(token.clone()) {
                    table.let_go(&before, id);
                }
                table.with_token.entry(token).or_default().insert(id.to_owned());
            }
        }
    }

    /// The devices whose requests wait for the approval of a user (`m.oauth`), each once.
    pub(crate) fn waiting(&self, now: u64, user: &UserId) -> Vec<OwnedDeviceId> {
        let table = self.0.lock();
        let ids = table.of(user);
        let open = ids.iter().filter_map(|id| table.sessions.get(id)).filter(|session| session.waits(now));
        let devices: BTreeSet<_> = open.filter_map(|session| session.operation.device_of(user)).collect();
        devices.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Completes what a device of the user waits for; whether there was anything. Nothing is if the device asks for more
    /// than one thing: the user cannot tell them apart.
    pub(crate) fn approve(&self, now: u64, user: &UserId, device: &DeviceId) -> bool {
        let mut table = self.0.lock();
        let of_device =
            |session: &Session| session.waits(now) && session.operation.device_of(user) == Some(device);
        let mut waiting = table.of(user);
        waiting.retain(|id| table.sessions.get(id).is_some_and(of_device));
        let mut wanted = waiting.iter().filter_map(|id| table.sessions.get(id)).map(|found| &found.operation);
        let Some(first) = wanted.next() else { return false };
        if wanted.any(|other| other != first) {
            return false;
        }
        for id in &waiting {
            if let Some(session) = table.sessions.get_mut(id) {
                session.progress.completed.push(AuthType::OAuth);
            }
        }
        true
    }

    /// A live session for the very same operation.
    pub(crate) fn same(&self, now: u64, operation: &Operation) -> Option<String> {
        let table = self.0.lock();
        let id = table.last.get(operation)?;
        table.sessions.get(id).filter(|session| session.ends > now).map(|_| id.clone())
    }

    /// Notes a wrong proof; too many end the session.
    pub(crate) fn fail(&self, id: &str) -> Progress {
        let mut table = self.0.lock();
        let Some(session) = table.sessions.get_mut(id) else { return Progress::default() };
        session.failures += 1;
        let progress = session.progress.clone();
        if session.failures >= PATIENCE {
            table.remove(id);
        }
        progress
    }

    /// Ends a session whose stages fill one of the flows; only one caller gets it.
    pub(crate) fn finish(
        &self,
        now: u64,
        id: &str,
        operation: &Operation,
        flows: &[Vec<AuthType>],
    ) -> Result<Progress, Progress> {
        let mut table = self.0.lock();
        let Some(session) = table.sessions.get(id) else { return Err(Progress::default()) };
        let done = |flow: &Vec<AuthType>| flow.iter().all(|stage| session.progress.completed.contains(stage));
        let mine = session.ends > now && match_operation(session, operation).is_ok();
        if !mine || !flows.iter().any(done) {
            return Err(session.progress.clone());
        }
        Ok(table.remove(id).map(|session| session.progress).unwrap_or_default())
    }

    /// Registrations under way with a token, one session aside.
    pub(crate) fn pending(&self, now: u64, token: &str, aside: Option<&str>) -> u64 {
        let table = self.0.lock();
        let holders = table.with_token.get(token).into_iter().flatten();
        let others = holders.filter(|id| Some(id.as_str()) != aside);
        let alive = |id: &&String| table.sessions.get(*id).is_some_and(|session| session.ends > now);
        others.filter(alive).count() as u64
    }
}

fn match_operation(session: &Session, operation: &Operation) -> Result<(), Error> {
    if session.operation == *operation {
        Ok(())
    } else {
        Err(Error::Forbidden("this session was opened for another request"))
    }
}
