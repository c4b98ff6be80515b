//! Names to addresses, and the services of a domain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use hickory_resolver::{TokioResolver, proto::rr::RData};

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

/// The look-up failed or found nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("name look-up: {0}")]
pub struct DnsError(pub String);

/// Name look-ups.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The addresses of a host (A and AAAA, hosts file included), in the order to try them.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError>;

    /// The SRV records of a name such as `_matrix-fed._tcp.example.org`, sorted by priority, heaviest first.
    /// A failed look-up is no obstacle: callers go on without.
    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError>;
}

/// The machine's own resolver for addresses, hickory for SRV, which the machine's cannot ask.
pub(crate) struct System {
    srv: Option<TokioResolver>,
}

impl System {
    pub(crate) fn new() -> Self {
        let srv = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
        if let Err(error) = &srv {
            tracing::warn!(%error, "no resolver configuration: going on without SRV look-ups");
        }
        Self { srv: srv.ok() }
    }
}

#[async_trait]
impl Dns for System {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| DnsError(e.to_string()))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|socket| socket.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    async fn services(&self, name: &str) -> Result<Vec<Service>, DnsError> {
        let Some(resolver) = &self.srv else { return Ok(Vec::new()) };
        let name = format!("{}.", name.trim_end_matches('.'));
        let found = resolver.srv_lookup(name).await.map_err(|e| DnsError(e.to_string()))?;
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                port: srv.port,
            }),
            _ => None,
        };
        let mut services: Vec<Service> = found.answers().iter().filter_map(|r| service(&r.data)).collect();
        services.sort_by_key(|service| (service.priority, std::cmp::Reverse(service.weight)));
        Ok(services)
    }
}

/// Names that mean this machine everywhere (RFC 6761 §6.3); not every system's resolver knows those under `localhost`.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::is_localhost;

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
