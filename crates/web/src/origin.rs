//! Where a request comes from, seen through trusted proxies alone.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Once},
};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;

use crate::Settings;

/// The other end of the connection; the listener adds it as an extension (as it may add axum's `ConnectInfo`).
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The client's address: the connection's, or what the nearest trusted proxy says. `0.0.0.0` when there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(pub IpAddr);

impl Origin {
    /// What is counted as one client: the address, of IPv6 the network of 64 bits, which one customer has to himself.
    pub fn network(&self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        }
    }

    /// The same as a text.
    pub fn subject(&self) -> String {
        self.network().to_string()
    }
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(origin(parts)))
    }
}

pub(crate) fn origin(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    let info = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let connection = peer.or(info).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    let Some(settings) = parts.extensions.get::<Arc<Settings>>() else { return connection };
    let trusted = |address: IpAddr| settings.trusts(address);
    if !trusted(connection) {
        return connection;
    }
    // Each proxy appends the address it saw: from the right, the first that is not a proxy is the client.
    let headers = parts.headers.get_all("x-forwarded-for").into_iter().filter_map(|v| v.to_str().ok());
    let chain: Vec<&str> = headers.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut nearest = connection;
    for text in chain.into_iter().rev() {
        let Some(address) = written(text) else {
            warn_once(connection);
            break;
        };
        nearest = address.to_canonical();
        if !trusted(nearest) {
            break;
        }
    }
    nearest
}

/// An address as proxies write it: some add the port, some put brackets around one of IPv6.
fn written(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// All clients of a proxy that is not understood count as one: the operator has to know, and one line is enough.
fn warn_once(proxy: IpAddr) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(%proxy, "X-Forwarded-For holds something that is no address: clients are not told apart");
    });
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use super::{Peer, origin};
    use crate::Settings;

    fn seen(peer: &str, forwarded: &[&str]) -> IpAddr {
        let mut request = http::Request::get("/");
        for value in forwarded {
            request = request.header("X-Forwarded-For", *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        parts.extensions.insert(Arc::new(Settings { trusted_proxies, ..Settings::default() }));
        parts.extensions.insert(Peer(peer.parse().unwrap()));
        origin(&parts)
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, expected) in [
            ("1.1.1.1:49152", "1.1.1.1"),
            ("[2001:db8::1]:49152", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("6.6.6.6, 1.1.1.1:1, 10.2.2.2:80", "1.1.1.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[text]), ip(expected), "{text}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(seen("9.9.9.9", &["1.1.1.1"]), ip("9.9.9.9"));
        assert_eq!(seen("10.0.0.1", &["1.1.1.1"]), ip("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.2.2.2"]), ip("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["6.6.6.6", "1.1.1.1"]), ip("1.1.1.1"));
        assert_eq!(seen("10.0.0.1", &["nonsense"]), ip("10.0.0.1"));
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, nonsense, 10.2.2.2"]), ip("10.2.2.2"));
        assert_eq!(seen("10.0.0.1", &[]), ip("10.0.0.1"));
    }
}
