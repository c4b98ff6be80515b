//! The section `[[listeners]]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

/// One address and port, and what is served there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address to bind; `::` and `0.0.0.0` are all addresses.
    #[serde(default = "loopback")]
    pub address: IpAddr,
    /// Port; 0 lets the system choose, for tests.
    pub port: u16,
    /// What is served.
    pub apis: BTreeSet<Api>,
    /// Certificate and key; absent: plain HTTP, for a proxy on the same machine or for tests.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
}

impl Listener {
    /// Where to bind.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

/// A group of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// For clients: `/_matrix/client`, `/.well-known/matrix/client`.
    Client,
    /// For other servers: `/_matrix/federation`, `/_matrix/key`, `/.well-known/matrix/server`.
    Federation,
    /// Uploads and downloads: `/_matrix/media`, `/_matrix/client/v1/media`.
    Media,
    /// The identity service: `/_matrix/identity`.
    Identity,
    /// What this network's own servers alone may ask of the identity service: `internal-info`, `internal/bind`. Nobody is
    /// asked for a token there: keep it off the Internet.
    IdentityInternal,
    /// For server administrators: `/_synapse/admin`. Keep it off the Internet.
    Admin,
    /// Prometheus: `/metrics`. Keep it off the Internet.
    Metrics,
    /// `/health`.
    Health,
}

/// PEM files; they are read again with the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificate authorities: whoever connects must show a certificate of one of them.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
}
