//! Names to addresses, and the services of a domain.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::{TokioResolver, proto::rr::RData};
use tokio::sync::Semaphore;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Host name, without the final dot.
    pub target: String,
    /// Port.
    pub port: u16,
}

/// Nothing was found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DnsError {
    /// The look-up failed or found nothing.
    #[error("name look-up: {0}")]
    Failed(String),
    /// Too many names are being looked up: nothing was learned of this one.
    #[error("too many names are being looked up")]
    Busy,
}

/// Name look-ups.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The addresses of a host (A and AAAA, hosts file included), in the order to try them.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError>;

    /// The SRV records of a name such as `_matrix-fed._tcp.example.org`, in no order.
    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError>;
}

/// The machine's own resolver for addresses, hickory for SRV, which the machine's cannot ask.
pub(crate) struct System {
    srv: Option<TokioResolver>,
    threads: Threads,
}

/// Address look-ups under way at once: each has a thread until the resolver answers or gives up. Other work that blocks needs
/// some as well: a runtime has these besides.
pub const LOOK_UPS: usize = 256;
/// How long a look-up waits for a thread: less than a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(4);

/// Threads for look-ups.
struct Threads(Arc<Semaphore>);

impl Threads {
    /// Does what blocks once there is a thread. Whoever stops waiting gives up what was not begun; what was begun keeps its
    /// thread until it ends.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, DnsError> {
        let thread = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        let thread = thread.map_err(|_| DnsError::Busy)?.map_err(|e| DnsError::Failed(e.to_string()))?;
        let work = move || {
            let _thread = thread;
            work()
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the world waits for its tasks at the end, not for these"
        )]
        let ended = tokio::task::spawn_blocking(work);
        ended.await.map_err(|e| DnsError::Failed(e.to_string()))
    }
}

impl System {
    pub(crate) fn new() -> Self {
        let srv = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
        if let Err(error) = &srv {
            tracing::warn!(%error, "no resolver configuration: going on without SRV look-ups");
        }
        Self { srv: srv.ok(), threads: Threads(Arc::new(Semaphore::new(LOOK_UPS))) }
    }
}

#[async_trait]
impl Dns for System {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let name = host.to_owned();
        let found = self.threads.run(move || (name.as_str(), 0).to_socket_addrs()).await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map_err(|e| DnsError::Failed(e.to_string()))?.map(|socket| socket.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        let Some(resolver) = &self.srv else { return Ok(Vec::new()) };
        let name = format!("{}.", name.trim_end_matches('.'));
        let found = resolver.srv_lookup(name).await.map_err(|e| DnsError::Failed(e.to_string()))?;
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                port: srv.port,
            }),
            _ => None,
        };
        Ok(found.answers().iter().filter_map(|record| service(&record.data)).collect())
    }
}

/// Services in the order to try them (RFC 2782): by priority, and among those of one priority drawn by weight. `below` draws
/// a number below its argument.
pub(crate) fn in_order(mut services: Vec<Service>, below: impl Fn(u64) -> u64) -> Vec<Service> {
    // Those without weight come first, so that they are drawn now and then.
    services.sort_by_key(|service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let alike = services.iter().take_while(|service| service.priority == first.priority);
        let weights: Vec<u64> = alike.map(|service| service.weight.into()).collect();
        let drawn = below(weights.iter().sum::<u64>() + 1);
        let mut sum = 0;
        let place = weights.iter().position(|weight| {
            sum += weight;
            sum >= drawn
        });
        ordered.push(services.remove(place.unwrap_or(0)));
    }
    ordered
}

/// Names that mean this machine everywhere (RFC 6761 §6.3); not every system's resolver knows those under `localhost`.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::{DnsError, Service, Threads, in_order, is_localhost};
    use crate::random::Random;

    #[tokio::test]
    async fn a_look_up_nobody_waits_for_keeps_its_thread_and_no_more_are_begun() {
        let threads = Threads(Arc::new(Semaphore::new(1)));
        let (answer, resolver) = mpsc::channel::<()>();
        let mut slow = Box::pin(threads.run(move || resolver.recv()));
        assert!(slow.as_mut().now_or_never().is_none());
        drop(slow);
        let mut next = Box::pin(threads.run(|| 7));
        assert!(next.as_mut().now_or_never().is_none(), "the resolver still works on the other");
        drop(answer);
        assert_eq!(next.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_for_which_there_is_no_thread_says_so() {
        let threads = Threads(Arc::new(Semaphore::new(0)));
        assert!(matches!(threads.run(|| 7).await, Err(DnsError::Busy)));
    }

    #[test]
    fn the_lowest_priority_comes_first_and_weights_are_shares() {
        let service = |priority, weight| Service { priority, weight, target: String::new(), port: 1 };
        let random = Random::seeded(1);
        let below = |bound: u64| {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            u64::from_be_bytes(bytes) % bound
        };
        let mut firsts = [0; 4];
        for _ in 0..4_000 {
            let given = vec![service(2, 9), service(1, 30), service(1, 0), service(1, 10), service(0, 0)];
            let ordered = in_order(given, below);
            let priorities: Vec<u16> = ordered.iter().map(|service| service.priority).collect();
            assert_eq!(priorities, [0, 1, 1, 1, 2]);
            firsts[usize::from(ordered[1].weight / 10)] += 1;
        }
        let [none, light, _, heavy] = firsts;
        assert!((50..150).contains(&none), "one of 41: {firsts:?}");
        assert!((850..1_100).contains(&light) && heavy > 2_700, "{firsts:?}");
        assert!(in_order(Vec::new(), below).is_empty());
    }

    #[test]
    fn names_of_this_machine() {
        for own in ["localhost", "LOCALHOST.", "a.localhost", "a.b.localhost."] {
            assert!(is_localhost(own), "{own}");
        }
        for other in ["localhost.example.org", "notlocalhost", "example.org", ""] {
            assert!(!is_localhost(other), "{other}");
        }
    }
}
