//! A network inside the process: requests go to registered handlers, and a simulation decides their fate.

use std::{collections::HashMap, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyExt, BodyStream, Full};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{Service as TowerService, ServiceExt};

use crate::{Body, Destination, Dns, DnsError, Error, Http, Request, Steady, World, dns::Service};

/// What makes a fake world.
#[derive(Clone, Debug)]
pub struct Fake {
    /// Who this world is, as [`Fate`] hooks see it: by convention the server name.
    pub name: String,
    /// Fixes everything random.
    pub seed: u64,
    /// Wall time at the beginning, in milliseconds since 1970.
    pub epoch_ms: u64,
    /// The network it is on.
    pub net: FakeNet,
}

impl Fake {
    /// A world of its own, named `name`, in the year 2026.
    pub fn new(name: &str, seed: u64, net: &FakeNet) -> Self {
        Self { name: name.to_owned(), seed, epoch_ms: 1_780_000_000_000, net: net.clone() }
    }

    pub(crate) fn http(&self) -> Arc<dyn Http> {
        Arc::new(Wire { from: self.name.clone(), net: self.net.clone() })
    }

    pub(crate) fn dns(&self) -> Arc<dyn Dns> {
        Arc::new(self.net.clone())
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Deliver,
    /// It arrives after a while.
    Delay(Duration),
    /// It never arrives; the sender waits until its deadline.
    Lose,
    /// It arrives and is dealt with, but the answer is lost.
    LoseAnswer,
    /// It arrives and is dealt with, and the connection breaks before the answer.
    Break,
    /// It arrives twice; the sender gets the second answer.
    Duplicate,
    /// There is no way: the sender is told at once.
    Unreachable,
    /// The sender has too much under way to send it.
    Busy,
}

type Answer = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// Answers requests.
pub type Handler = Arc<dyn Fn(http::Request<Bytes>, Instant) -> Answer + Send + Sync>;

type Judge = Arc<dyn Fn(&str, &str, &http::Request<Bytes>) -> Fate + Send + Sync>;

#[derive(Default)]
struct Table {
    handlers: HashMap<String, Handler>,
    services: HashMap<String, Vec<Service>>,
    judge: Option<Judge>,
}

/// The network; clones share it.
#[derive(Clone, Default)]
pub struct FakeNet {
    table: Arc<Mutex<Table>>,
}

impl FakeNet {
    /// A network without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a service (an axum `Router`, say) under a host name, any port. Requests run as tasks of `world`.
    pub fn route<S, B>(&self, host: &str, world: &World, service: S)
    where
        S: TowerService<http::Request<Full<Bytes>>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: std::fmt::Display,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let world = world.clone();
        let handler: Handler = Arc::new(move |request, deadline| {
            let (service, world) = (service.clone(), world.clone());
            let work = async move {
                let answer = service.oneshot(request.map(Full::new)).await;
                answer.map_or_else(|e| gateway_error(&e.to_string()), |answer| limited(answer, deadline))
            };
            world.spawn("request", work).map(|ended| ended.unwrap_or_else(|_| gateway_error("down"))).boxed()
        });
        self.table.lock().handlers.insert(host.to_owned(), handler);
    }

    /// Takes a host off the network.
    pub fn unroute(&self, host: &str) {
        self.table.lock().handlers.remove(host);
    }

    /// Sets the SRV records of a name.
    pub fn set_services(&self, name: &str, services: Vec<Service>) {
        self.table.lock().services.insert(name.to_owned(), services);
    }

    /// Sets what decides the fate of every request: `(from, to host, request)`.
    pub fn judge(&self, judge: impl Fn(&str, &str, &http::Request<Bytes>) -> Fate + Send + Sync + 'static) {
        self.table.lock().judge = Some(Arc::new(judge));
    }

    fn handler(&self, host: &str) -> Option<Handler> {
        self.table.lock().handlers.get(host).cloned()
    }

    fn fate(&self, from: &str, to: &str, request: &http::Request<Bytes>) -> Fate {
        let judge = self.table.lock().judge.clone();
        judge.map_or(Fate::Deliver, |judge| judge(from, to, request))
    }
}

impl std::fmt::Debug for FakeNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.table.lock().handlers.keys()).finish()
    }
}

fn limited<B>(answer: http::Response<B>, deadline: Instant) -> http::Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let limits = crate::Limits { max_bytes: u64::MAX, ..crate::Limits::default() };
    answer.map(|body| {
        let frames = BodyStream::new(body.map_err(|e| Error::Broken(e.to_string())));
        let data = frames.filter_map(async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error)),
        });
        Body::new(data, limits, deadline)
    })
}

fn gateway_error(reason: &str) -> http::Response<Body> {
    let (reason, now) = (Bytes::from(reason.to_owned()), Instant::now());
    let pieces = futures_util::stream::iter([Ok(reason)]);
    let mut answer = http::Response::new(Body::new(pieces, crate::Limits::default(), now));
    *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
    answer
}

struct Wire {
    from: String,
    net: FakeNet,
}

#[async_trait]
impl Http for Wire {
    async fn stream(&self, request: Request) -> Result<http::Response<Body>, Error> {
        let (limits, deadline) = (request.limits, Instant::now() + request.limits.deadline);
        let to = match &request.destination {
            Destination::Host(host) => host.connect.clone(),
            _ => request.http.uri().host().unwrap_or_default().to_owned(),
        };
        let is_steady = request.http.extensions().get::<Steady>().is_some();
        // Of the body that is made there; the limits that count are those of the one that is made of it here.
        let last = Instant::now() + Steady::time_for(limits.deadline, u64::MAX);
        let deliver = self.deliver(&to, request.http, last);
        let answer = tokio::time::timeout_at(deadline, deliver).await.map_err(|_| Error::Timeout)??;
        Ok(answer.map(|body| {
            let body = Body::new(body, limits, deadline);
            if is_steady { body.steady(limits.deadline) } else { body }
        }))
    }
}

impl Wire {
    async fn deliver(
        &self,
        to: &str,
        request: http::Request<Bytes>,
        deadline: Instant,
    ) -> Result<http::Response<Body>, Error> {
        let fate = self.net.fate(&self.from, to, &request);
        match fate {
            Fate::Delay(duration) => tokio::time::sleep(duration).await,
            Fate::Busy => return Err(Error::Busy),
            _ => {}
        }
        let handler = self.net.handler(to).filter(|_| fate != Fate::Unreachable);
        let Some(handler) = handler else { return Err(Error::Unreachable(to.to_owned())) };
        match fate {
            Fate::Lose => std::future::pending().await,
            Fate::LoseAnswer => {
                handler(request, deadline).await;
                std::future::pending().await
            }
            Fate::Break => {
                handler(request, deadline).await;
                Err(Error::Broken(to.to_owned()))
            }
            Fate::Duplicate => {
                handler(request.clone(), deadline).await;
                Ok(handler(request, deadline).await)
            }
            Fate::Deliver | Fate::Delay(_) | Fate::Unreachable | Fate::Busy => {
                Ok(handler(request, deadline).await)
            }
        }
    }
}

#[async_trait]
impl Dns for FakeNet {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        match self.handler(host) {
            Some(_) => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            None => Err(DnsError::Failed(format!("{host} is unknown"))),
        }
    }

    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        Ok(self.table.lock().services.get(name).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use http_body_util::Full;

    use super::{Fake, FakeNet, Fate};
    use crate::{Destination, Error, Limits, Request, World};

    fn net_with_echo() -> (FakeNet, World) {
        let net = FakeNet::new();
        let world = World::fake(Fake::new("a.test", 1, &net));
        let other = World::fake(Fake::new("b.test", 2, &net));
        let echo = tower::service_fn(async |request: http::Request<Full<Bytes>>| {
            let path = request.uri().path().to_owned();
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(path))))
        });
        net.route("b.test", &other, echo);
        (net, world)
    }

    fn request(url: &str) -> Request {
        let http = http::Request::get(url).body(Bytes::new()).unwrap();
        let limits = Limits { max_bytes: 8, deadline: Duration::from_millis(200) };
        Request { destination: Destination::Url { redirects: 0 }, http, limits }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_reach_the_host_they_name_within_limits() {
        let (_net, world) = net_with_echo();
        let answer = world.send(request("https://b.test/hello")).await.unwrap();
        assert_eq!(&answer.body()[..], b"/hello");
        assert!(matches!(world.send(request("https://b.test/far-too-long")).await, Err(Error::TooLong)));
        assert!(matches!(world.send(request("https://c.test/")).await, Err(Error::Unreachable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_judge_decides_what_happens() {
        let (net, world) = net_with_echo();
        net.judge(|from, to, _| {
            assert_eq!((from, to), ("a.test", "b.test"));
            Fate::Lose
        });
        let before = world.now();
        assert!(matches!(world.send(request("https://b.test/x")).await, Err(Error::Timeout)));
        assert!(world.now() - before >= 200);
        net.judge(|_, _, _| Fate::Delay(Duration::from_millis(5)));
        assert!(world.send(request("https://b.test/x")).await.is_ok());
    }
}
