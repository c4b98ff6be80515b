//! Long work for administrators: written down before it begins, done one after the other, gone on with after a restart.
//!
//! A job's work says what is to be done and what has come of it so far. Every step may be done twice: whoever is
//! interrupted begins the step anew.

mod announce;
mod delete_room;
mod purge_history;
mod redact_user;

use std::{sync::Arc, time::Duration};

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use chappe_store::{
    Json, Store, Tx,
    jobs::{Job, Jobs as Table, Progress},
};
use chappe_world::World;
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

pub(crate) use self::{
    announce::Announce, delete_room::DeleteRoom, purge_history::PurgeHistory, redact_user::RedactUser,
};
use crate::Error;

/// How long it is known what became of a job, in milliseconds.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Characters of an id.
const ID_LENGTH: usize = 16;
/// Wait before a job is tried again that met a busy server.
const AGAIN: Duration = Duration::from_secs(5);

/// What is to be done, and what has come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Close a room to this server's users and remove it.
    DeleteRoom(DeleteRoom),
    /// Remove old messages of a room.
    PurgeHistory(PurgeHistory),
    /// Redact what somebody said.
    RedactUser(RedactUser),
    /// Say something to everybody.
    Announce(Announce),
}

/// Why a step was not done.
pub(crate) enum Stop {
    /// It cannot be done: the job is given up.
    Failed(String),
    /// The server stops or is busy: the job goes on later.
    Later,
}

impl From<chappe_rooms::Error> for Stop {
    fn from(error: chappe_rooms::Error) -> Self {
        match error {
            chappe_rooms::Error::Retry => Self::Later,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(chappe_store::Error::Conflict) => Self::Later,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// The jobs of this server: a handle, clones share it.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) rooms: Rooms,
    /// There is something to do.
    wake: Notify,
    /// Something has ended.
    ended: watch::Sender<u64>,
}

/// A job in the hands of whoever does it.
pub(crate) struct Doing<'a> {
    pub(crate) jobs: &'a Inner,
    id: &'a str,
    job: Job,
}

impl Jobs {
    /// The jobs of a server. Nothing is done before [`Jobs::run`].
    pub fn new(world: World, store: Store, accounts: Accounts, rooms: Rooms) -> Self {
        let (wake, ended) = (Notify::new(), watch::Sender::new(0));
        Self(Arc::new(Inner { world, store, accounts, rooms, wake, ended }))
    }

    /// Writes a job down and gives its id.
    pub async fn start(&self, by: Option<OwnedUserId>, work: &Work) -> Result<String, Error> {
        let id = self.0.world.token(ID_LENGTH);
        let job = Job {
            work: value(work)?,
            progress: Progress::Scheduled,
            by,
            created: self.0.world.now(),
            ended: None,
            error: None,
        };
        let mut tx = Tx::new();
        tx.expect_absent::<Table>(&id).put::<Table>(&id, &Json(job));
        self.0.store.commit(tx).await?;
        self.0.wake.notify_one();
        Ok(id)
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Option<(Job, Work)>, Error> {
        let found = self.0.store.read().get::<Table>(&id.to_owned()).await?;
        found.map(|Json(job)| with_work(job)).transpose()
    }

    /// All jobs that this release can read, by id.
    pub async fn all(&self) -> Result<Vec<(String, Job, Work)>, Error> {
        let rows = self.0.store.read().scan_all::<Table>(&()).await?;
        let read =
            |(id, Json(job)): (String, Json<Job>)| with_work(job).map(|(job, work)| (id, job, work)).ok();
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Waits for the end of a job; gives what came of it. `None` when the server stops first or there is no such job.
    pub async fn ended(&self, id: &str) -> Result<Option<(Job, Work)>, Error> {
        let mut ended = self.0.ended.subscribe();
        loop {
            let Some((job, work)) = self.job(id).await? else { return Ok(None) };
            if job.ended.is_some() {
                return Ok(Some((job, work)));
            }
            tokio::select! {
                biased;
                () = self.0.world.stopping() => return Ok(None),
                changed = ended.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }

    /// Does what is to be done, until the world stops.
    pub async fn run(self) {
        loop {
            let wait = match self.do_all().await {
                Ok(true) => None,
                Ok(false) => Some(AGAIN),
                Err(error) => {
                    tracing::warn!(%error, "jobs of administrators");
                    Some(AGAIN)
                }
            };
            let pause = async {
                match wait {
                    Some(wait) => self.0.world.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.0.world.stopping() => return,
                () = self.0.wake.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Does every job that waits, the oldest first; gives whether all came to an end. Forgets those that ended long ago.
    async fn do_all(&self) -> Result<bool, Error> {
        let mut jobs = self.0.store.read().scan_all::<Table>(&()).await?;
        jobs.sort_by_key(|(_, Json(job))| job.created);
        let mut all_ended = true;
        for (id, Json(job)) in jobs {
            if self.0.world.is_stopping() {
                break;
            }
            match job.ended {
                Some(at) if at + KEPT_MS < self.0.world.now() => {
                    let mut tx = Tx::new();
                    tx.delete::<Table>(&id);
                    self.0.store.commit(tx).await?;
                }
                Some(_) => {}
                None => all_ended &= self.do_one(&id, job).await?,
            }
        }
        Ok(all_ended)
    }

    async fn do_one(&self, id: &str, job: Job) -> Result<bool, Error> {
        let work = serde_json::from_value(job.work.clone());
        let mut doing = Doing { jobs: &self.0, id, job };
        let Ok(work) = work else {
            doing.end(Progress::Failed, Some("this release cannot read the job".to_owned())).await?;
            return Ok(true);
        };
        doing.job.progress = Progress::Active;
        doing.note(&work).await?;
        tracing::info!(job = id, "a job of an administrator begins");
        let done = match work {
            Work::DeleteRoom(work) => work.run(&mut doing).await,
            Work::PurgeHistory(work) => work.run(&mut doing).await,
            Work::RedactUser(work) => work.run(&mut doing).await,
            Work::Announce(work) => work.run(&mut doing).await,
        };
        match done {
            Ok(()) => doing.end(Progress::Complete, None).await?,
            Err(Stop::Failed(why)) => doing.end(Progress::Failed, Some(why)).await?,
            Err(Stop::Later) => return Ok(false),
        }
        Ok(true)
    }
}

impl Doing<'_> {
    /// Who asked for the job.
    pub(crate) fn by(&self) -> Option<&OwnedUserId> {
        self.job.by.as_ref()
    }

    /// Writes down how far the work has come.
    pub(crate) async fn note(&mut self, work: &Work) -> Result<(), Error> {
        self.job.work = value(work)?;
        self.write().await
    }

    async fn end(&mut self, progress: Progress, error: Option<String>) -> Result<(), Error> {
        if let Some(error) = &error {
            tracing::warn!(job = self.id, %error, "a job of an administrator was given up");
        }
        (self.job.progress, self.job.error) = (progress, error);
        self.job.ended = Some(self.jobs.world.now());
        self.write().await?;
        self.jobs.ended.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Nobody else writes a job once it was written down.
    async fn write(&self) -> Result<(), Error> {
        let mut tx = Tx::new();
        tx.put::<Table>(&self.id.to_owned(), &Json(self.job.clone()));
        self.jobs.store.commit(tx).await?;
        Ok(())
    }
}

fn value(work: &Work) -> Result<serde_json::Value, Error> {
    serde_json::to_value(work).map_err(|_| chappe_store::Error::Corrupt("job").into())
}

fn with_work(job: Job) -> Result<(Job, Work), Error> {
    let work = serde_json::from_value(job.work.clone());
    Ok((job, work.map_err(|_| chappe_store::Error::Corrupt("job"))?))
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}
