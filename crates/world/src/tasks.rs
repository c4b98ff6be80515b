//! Tasks: started under a name, stopped together, waited for.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The world stopped before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

/// The result of a task: wait for it or drop it, the task runs on either way.
#[derive(Debug)]
pub struct Ended<T>(tokio::task::JoinHandle<Option<T>>);

impl<T> Future for Ended<T> {
    type Output = Result<T, Stopped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.ok().flatten().ok_or(Stopped))
    }
}

/// Every task of one world.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    /// `None` runs blocking work in place, so that a simulation stays in one order.
    blocking: Option<Arc<Semaphore>>,
    running: Arc<Running>,
}

/// How many tasks run under each name.
#[derive(Debug, Default)]
struct Running(Mutex<BTreeMap<&'static str, usize>>);

/// A task that runs.
struct Entry(Arc<Running>, &'static str);

impl Entry {
    fn new(running: &Arc<Running>, name: &'static str) -> Self {
        *running.0.lock().entry(name).or_default() += 1;
        Self(Arc::clone(running), name)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut names = self.0.0.lock();
        let left = names.get(self.1).map_or(0, |count| count - 1);
        if left == 0 {
            names.remove(self.1);
        } else {
            names.insert(self.1, left);
        }
    }
}

impl Tasks {
    pub(crate) fn threaded() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self::with(Some(Arc::new(Semaphore::new(cores * 4))))
    }

    pub(crate) fn inline() -> Self {
        Self::with(None)
    }

    fn with(blocking: Option<Arc<Semaphore>>) -> Self {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        Self { tracker: TaskTracker::new(), stop, kill, blocking, running: Arc::default() }
    }

    pub(crate) fn spawn<F>(&self, name: &'static str, future: F) -> Ended<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Boxed: each layer around a future would have room of its own for it, for as long as the task lives.
        let future = Box::pin(future);
        self.spawn_one_of_many(name, future.instrument(tracing::info_span!("task", name)))
    }

    pub(crate) fn spawn_one_of_many<F>(&self, name: &'static str, future: F) -> Ended<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let kill = self.kill.clone();
        let future = Box::pin(future);
        let entry = Entry::new(&self.running, name);
        let task = async move {
            let _entry = entry;
            kill.run_until_cancelled(future).await
        };
        Ended(self.tracker.spawn(task))
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let Some(slots) = &self.blocking else { return Ok(work()) };
        let slot = Arc::clone(slots).acquire_owned().await.map_err(|_| Stopped)?;
        let entry = Entry::new(&self.running, "blocking work");
        let work = move || {
            let _held = (slot, entry);
            work()
        };
        self.tracker.spawn_blocking(work).await.map_err(|_| Stopped)
    }

    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(crate) async fn shut_down(&self, grace: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        self.tracker.close();
        let all = tokio::time::timeout(grace, self.tracker.wait()).await;
        let left = all.map_or_else(|_| self.running.0.lock().keys().copied().collect(), |()| Vec::new());
        self.kill.cancel();
        left
    }

    pub(crate) fn kill(&self) {
        self.stop.cancel();
        self.kill.cancel();
        self.tracker.close();
    }

    /// A signal that is given when the server is to stop, for code that wants a token rather than a future.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Stopped, Tasks};

    #[tokio::test(start_paused = true)]
    async fn shutting_down_waits_for_tasks_and_drops_those_that_will_not_end() {
        let tasks = Tasks::threaded();
        let polite = tasks.clone();
        let ended = tasks.spawn("polite", async move { polite.stopping().await });
        assert!(tasks.shut_down(Duration::from_secs(1)).await.is_empty());
        assert_eq!(ended.await, Ok(()));

        let tasks = Tasks::threaded();
        let ended = tasks.spawn_one_of_many("rude", std::future::pending::<()>());
        assert_eq!(tasks.shut_down(Duration::from_millis(20)).await, ["rude"]);
        assert_eq!(ended.await, Err(Stopped));
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result_and_a_panic_does_not_spread() {
        let tasks = Tasks::threaded();
        assert_eq!(tasks.blocking(|| 7).await, Ok(7));
        let boom: Result<(), _> = tasks.blocking(|| std::panic::resume_unwind(Box::new("boom"))).await;
        assert_eq!(boom, Err(Stopped));
    }
}
