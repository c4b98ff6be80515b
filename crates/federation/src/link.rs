//! One exchange with another server, wherever it is: discovery, then the hosts that were found, one after the other.

use bytes::Bytes;
use chappe_world::{Body, Destination, Limits, Request, World};
use ruma::ServerName;

use crate::discovery::{Discovery, Unresolvable};

/// Sends requests to servers by name. Knows no signatures and no waiting times.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) world: World,
    pub(crate) discovery: Discovery,
}

/// No answer came.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The server was not found or not reached, or broke off: try again later.
    #[error("{0}")]
    Unreachable(String),
    /// Too much is under way here: nothing was learned of the server.
    #[error("too much is under way")]
    Busy,
    /// It sent more than was asked for.
    #[error("the answer is too long")]
    TooLong,
}

impl Link {
    /// Sends a request and reads the whole answer. The URI of `http` is path and query.
    pub(crate) async fn exchange(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Bytes>, LinkError> {
        let mut last = String::new();
        for request in self.requests(to, http, limits).await? {
            match self.world.send(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = self.next_or(to, error)?,
            }
        }
        Err(LinkError::Unreachable(last))
    }

    /// The same, for answers that are read piece by piece.
    pub(crate) async fn stream(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<http::Response<Body>, LinkError> {
        let mut last = String::new();
        for request in self.requests(to, http, limits).await? {
            match self.world.stream(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = self.next_or(to, error)?,
            }
        }
        Err(LinkError::Unreachable(last))
    }

    async fn requests(
        &self,
        to: &ServerName,
        http: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Vec<Request>, LinkError> {
        let target = self.discovery.target(to).await.map_err(|error| match error {
            Unresolvable::Busy => LinkError::Busy,
            error @ Unresolvable::Name(_) => LinkError::Unreachable(error.to_string()),
        })?;
        let request = |host| Request { destination: Destination::Host(host), http: http.clone(), limits };
        Ok(target.hosts.into_iter().map(request).collect())
    }

    /// Whether another host may be tried: only when nothing was sent to this one.
    fn next_or(&self, to: &ServerName, error: chappe_world::Error) -> Result<String, LinkError> {
        use chappe_world::Error;
        if !matches!(error, Error::TooLong | Error::Busy) {
            self.discovery.forget(to);
        }
        match error {
            Error::Unreachable(why) | Error::Refused(why) => Ok(why),
            Error::TooLong => Err(LinkError::TooLong),
            Error::Busy => Err(LinkError::Busy),
            other => Err(LinkError::Unreachable(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
    };

    use chappe_world::{Fake, FakeNet, Fate, Service};
    use http_body_util::Full;
    use ruma::server_name;

    use super::*;
    use crate::Config;

    /// Asks a server with two hosts, the first of which is reached like this; whether it answers, and how often it was asked.
    async fn asked(fate: Fate) -> (bool, usize) {
        let net = FakeNet::new();
        let world = World::fake(Fake::new("us.example", 1, &net));
        let count = Arc::new(AtomicUsize::new(0));
        let mut services = Vec::new();
        for (priority, host) in [(1, "one.example"), (2, "two.example")] {
            let counted = Arc::clone(&count);
            let answer = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
                counted.fetch_add(1, SeqCst);
                async { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new()))) }
            });
            net.route(host, &world, answer);
            services.push(Service { priority, weight: 1, target: host.to_owned(), port: 8448 });
        }
        net.set_services("_matrix-fed._tcp.them.example", services);
        net.judge(move |_, to, _| if to == "one.example" { fate } else { Fate::Deliver });
        let link = Link { world: world.clone(), discovery: Discovery::new(world, &Config::default()) };
        let http = http::Request::post("/").body(Bytes::new()).unwrap();
        let answer = link.exchange(server_name!("them.example"), http, Limits::default()).await;
        (answer.is_ok(), count.load(SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn another_host_is_tried_only_where_nothing_was_sent_to_the_first() {
        for (fate, answered) in [(Fate::Unreachable, true), (Fate::Break, false)] {
            assert_eq!(asked(fate).await, (answered, 1), "{fate:?}");
        }
    }
}
