//! Time, randomness, task spawning, outbound HTTP and DNS, daemons and commands of the operator: small traits, real ones,
//! seeded fakes.
//!
//! Everything the server cannot know by itself comes through a [`World`]. [`World::real`] talks to the machine;
//! [`World::fake`] is seeded, keeps tokio's (pausable) time and routes requests in process through a [`FakeNet`].

mod clock;
mod dns;
mod fake;
mod guard;
pub mod http;
mod live;
mod operator;
mod random;
mod tasks;
mod wall;

use std::{sync::Arc, time::Duration};

use self::{clock::Clock, random::Random, wall::Wall};
pub use self::{
    dns::{Dns, DnsError, LOOK_UPS, Service},
    fake::{Fake, FakeNet, Fate, Handler},
    guard::Guard,
    http::{
        Body, ClientCertificate, Destination, Error, Host, Http, Limits, Outbound, Repeatable, Request,
        Steady,
    },
    live::Live,
    operator::{Duplex, Socket},
    tasks::{Ended, Stopped, Tasks},
};

/// The outside world: a handle, clones share it.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    wall: Wall,
    random: Random,
    tasks: Tasks,
    http: Arc<dyn Http>,
    dns: Arc<dyn Dns>,
    /// Room for short answers.
    answers: http::Room,
}

/// The real world could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A certificate authority file of the configuration cannot be used.
    #[error("certificate authority {file}: {reason}")]
    Authority {
        /// The file as configured.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate to show to other servers cannot be used.
    #[error("client certificate {file}: {reason}")]
    Certificate {
        /// The file as configured.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The proxy cannot be used.
    #[error("write http://host:port, without a user and a password")]
    Proxy,
}

impl SetupError {
    /// The key of [`Outbound`] that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Authority { .. } => "certificate_authorities",
            Self::Certificate { .. } => "client_certificate",
            Self::Proxy => "proxy",
        }
    }
}

impl World {
    /// The machine: system clock, system randomness, the network as `outbound` allows it.
    pub fn real(outbound: &Outbound) -> Result<Self, SetupError> {
        Self::named(outbound, Arc::new(dns::System::new()))
    }

    /// The same with names looked up elsewhere, for those who try where it connects to.
    pub fn named(outbound: &Outbound, dns: Arc<dyn Dns>) -> Result<Self, SetupError> {
        let tasks = Tasks::threaded();
        let http = Arc::new(http::Client::new(outbound, Arc::clone(&dns), &tasks)?);
        Ok(Self::of(Clock::system(), Random::system(), tasks, http, dns))
    }

    /// A seeded world: time begins at `fake.epoch_ms` and follows tokio's clock, requests go to `fake.net`.
    #[expect(clippy::needless_pass_by_value, reason = "a fake makes one world")]
    pub fn fake(fake: Fake) -> Self {
        let tasks = Tasks::inline();
        let (http, dns) = (fake.http(), fake.dns());
        Self::of(Clock::from(fake.epoch_ms), Random::seeded(fake.seed), tasks, http, dns)
    }

    fn of(clock: Clock, random: Random, tasks: Tasks, http: Arc<dyn Http>, dns: Arc<dyn Dns>) -> Self {
        let wall = Wall::new(clock.now());
        let answers = http::Room::default();
        Self { inner: Arc::new(Inner { clock, wall, random, tasks, http, dns, answers }) }
    }

    /// Wall time in milliseconds since 1970, as Matrix counts it. It may jump: never measure with it.
    pub fn now(&self) -> u64 {
        self.inner.clock.now()
    }

    /// Wall time to take things away by that are old; none within an hour after the clock was seen more than a day from where it
    /// was expected. One that is ahead for a while takes nothing away for good; what it dates while it is behind may go early.
    pub fn settled_now(&self) -> Option<u64> {
        self.inner.wall.settled(self.now())
    }

    /// What the wall clock said when it was last relied on, before the start: it is expected to be no more than a day from there.
    pub fn expect_clock(&self, said: u64) {
        self.inner.wall.expect(said);
    }

    /// Sets the wall clock of a fake world ahead of the steady one, from where it began; that of a real one stays.
    pub fn set_clock_ahead(&self, by: Duration) {
        self.inner.clock.set_ahead(clock::millis(by));
    }

    /// A point on the steady clock, for measuring and for deadlines.
    pub fn instant(&self) -> tokio::time::Instant {
        tokio::time::Instant::now()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until a point on the steady clock.
    pub async fn sleep_until(&self, at: tokio::time::Instant) {
        tokio::time::sleep_until(at).await;
    }

    /// Runs a future for so long at most; `None` when the time was up.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// Ticks every `period`, at once first; late ticks are skipped.
    pub fn interval(&self, period: Duration) -> tokio::time::Interval {
        let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        interval
    }

    /// Makes a round every `period`, at once first, until the server is to stop; a round that has begun comes to its end.
    pub async fn every<F: Future<Output = ()>>(&self, period: Duration, round: impl Fn() -> F) {
        let mut rounds = self.interval(period);
        loop {
            tokio::select! {
                biased;
                () = self.stopping() => return,
                _ = rounds.tick() => {}
            }
            round().await;
        }
    }

    /// Fills `bytes` from the secure random source.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.inner.random.fill(bytes);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    /// A random number below `bound` (0 when the bound is 0).
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.random()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A random text of `length` ASCII letters and digits; 32 of them carry 190 bits.
    pub fn token(&self, length: usize) -> String {
        random::alphanumeric(length, |bytes| self.fill(bytes))
    }

    /// The tasks of this world.
    pub fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Starts a task under a name for the logs. It ends by itself, or soon after [`World::stopping`] is ready.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Ended<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.tasks.spawn(name, future)
    }

    /// As [`World::spawn`], for tasks of which thousands wait: log lines do not say their name, as that would take memory for each
    /// of them as long as it lives.
    pub fn spawn_one_of_many<F>(&self, name: &'static str, future: F) -> Ended<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.tasks.spawn_one_of_many(name, future)
    }

    /// Runs work that blocks or burns CPU outside the async threads, a bounded number at a time.
    pub async fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.inner.tasks.blocking(work).await
    }

    /// Ready once the server is to stop: long-polls answer, loops end.
    pub async fn stopping(&self) {
        self.inner.tasks.stopping().await;
    }

    /// Whether the server is to stop.
    pub fn is_stopping(&self) -> bool {
        self.inner.tasks.is_stopping()
    }

    /// Says stop and waits until every task has ended, `grace` at most; what runs then is dropped.
    /// Gives the names of those that did not end by themselves.
    pub async fn shut_down(&self, grace: Duration) -> Vec<&'static str> {
        self.inner.tasks.shut_down(grace).await
    }

    /// Drops every task where it stands, as a crash does.
    pub fn kill(&self) {
        self.inner.tasks.kill();
    }

    /// The longest answer that is short, in bytes: all of those that [`World::send`] is reading, or has read and were not
    /// dropped yet, share so much room. Whoever permits longer ones bounds their number.
    pub const SHORT_BYTES: u64 = 16 << 20;

    /// Sends a request and reads the whole answer, within the request's limits.
    pub async fn send(&self, request: Request) -> Result<::http::Response<bytes::Bytes>, Error> {
        http::whole(&*self.inner.http, request, &self.inner.answers).await
    }

    /// Sends a request; the answer's body arrives piece by piece, within the request's limits.
    pub async fn stream(&self, request: Request) -> Result<::http::Response<Body>, Error> {
        self.inner.http.stream(request).await
    }

    /// The SRV records of a name such as `_matrix-fed._tcp.example.org`, in the order to try them; another one each time, by
    /// their weights.
    pub async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        let found = self.inner.dns.services(name).await?;
        Ok(dns::in_order(found, |bound| self.below(bound)))
    }

    /// Name look-ups.
    pub fn dns(&self) -> &dyn Dns {
        &*self.inner.dns
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::{Fake, FakeNet, World};

    #[tokio::test(start_paused = true)]
    async fn rounds_are_made_at_once_and_again_until_the_end() {
        let world = World::fake(Fake::new("x", 1, &FakeNet::new()));
        let (rounds, begun) = (Cell::new(0), world.instant());
        let made = world.every(Duration::from_mins(1), || async {
            rounds.set(rounds.get() + 1);
            if rounds.get() == 3 {
                world.shut_down(Duration::from_secs(1)).await;
                rounds.set(10);
            }
        });
        made.await;
        assert_eq!((rounds.get(), begun.elapsed()), (10, Duration::from_mins(2)));
    }
}
