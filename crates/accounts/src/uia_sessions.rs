//! The sessions of user-interactive authentication.

use std::collections::{BTreeSet, HashMap, VecDeque};

use chappe_world::World;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, api::client::uiaa::AuthType};

use crate::{
    Error,
    uia::{Operation, Proved},
};

/// Sessions kept at most; beyond, the oldest end.
const MOST: usize = 50_000;
/// Wrong proofs that end a session.
const PATIENCE: u32 = 10;

/// What a session has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) completed: Vec<AuthType>,
    pub(crate) email: Option<String>,
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

struct Session {
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
    /// In the order of opening, which is that of ending.
    order: VecDeque<(u64, String)>,
}

impl Table {
    fn remove(&mut self, id: &str) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        if self.last.get(&session.operation).is_some_and(|last| last == id) {
            self.last.remove(&session.operation);
        }
        Some(session)
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Table>);

impl Sessions {
    /// Opens a session; gives its id.
    pub(crate) fn open(&self, world: &World, lifetime: u64, operation: &Operation) -> String {
        let (id, now) = (world.token(32), world.now());
        let ends = now.saturating_add(lifetime);
        let mut table = self.0.lock();
        while let Some((end, oldest)) = table.order.front() {
            if *end > now && table.order.len() < MOST {
                break;
            }
            let oldest = oldest.clone();
            table.remove(&oldest);
            table.order.pop_front();
        }
        let session =
            Session { operation: operation.clone(), ends, failures: 0, progress: Progress::default() };
        table.sessions.insert(id.clone(), session);
        table.last.insert(operation.clone(), id.clone());
        table.order.push_back((ends, id.clone()));
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
            Proved::Email(address) => progress.email = Some(address),
            Proved::RegistrationToken(token) => progress.registration_token = Some(token),
        }
    }

    /// The devices whose requests wait for the approval of a user (`m.oauth`), each once.
    pub(crate) fn waiting(&self, now: u64, user: &UserId) -> Vec<OwnedDeviceId> {
        let table = self.0.lock();
        let open = table.sessions.values().filter(|session| session.waits(now));
        let devices: BTreeSet<_> = open.filter_map(|session| session.operation.device_of(user)).collect();
        devices.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Completes what a device of the user waits for; whether there was anything. Nothing is if the device asks for more
    /// than one thing: the user cannot tell them apart.
    pub(crate) fn approve(&self, now: u64, user: &UserId, device: &DeviceId) -> bool {
        let mut table = self.0.lock();
        let of_device =
            |session: &Session| session.waits(now) && session.operation.device_of(user) == Some(device);
        let mut waiting: Vec<&mut Session> =
            table.sessions.values_mut().filter(|session| of_device(session)).collect();
        let Some(wanted) = waiting.first().map(|session| session.operation.clone()) else { return false };
        if waiting.iter().any(|session| session.operation != wanted) {
            return false;
        }
        for session in &mut waiting {
            session.progress.completed.push(AuthType::OAuth);
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
        let counts = |(id, session): &(&String, &Session)| {
            Some(id.as_str()) != aside
                && session.ends > now
                && session.progress.registration_token.as_deref() == Some(token)
        };
        table.sessions.iter().filter(counts).count() as u64
    }
}

fn match_operation(session: &Session, operation: &Operation) -> Result<(), Error> {
    if session.operation == *operation {
        Ok(())
    } else {
        Err(Error::Forbidden("this session was opened for another request"))
    }
}
