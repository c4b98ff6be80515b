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

    /// Whether another host may be tried: only when this one was not reached at all.
    fn next_or(&self, to: &ServerName, error: chappe_world::Error) -> Result<String, LinkError> {
        use chappe_world::Error;
        match error {
            Error::Unreachable(why) | Error::Refused(why) => {
                self.discovery.forget(to);
                Ok(why)
            }
            Error::TooLong => Err(LinkError::TooLong),
            Error::Busy => Err(LinkError::Busy),
            other => Err(LinkError::Unreachable(other.to_string())),
        }
    }
}
