//! A proxy through which other servers are reached.

use std::net::IpAddr;

use bytes::Bytes;
use http::header;
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use super::Error;
use crate::{Guard, SetupError, Tasks};

/// Where the proxy is.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Proxy {
    pub(super) fn read(text: &str) -> Result<Self, SetupError> {
        let wrong = || SetupError::Proxy;
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none();
        let host = url.host_str().filter(|_| bare && url.scheme() == "http").ok_or_else(wrong)?;
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port })
    }

    /// A tunnel to `host` over a connection to the proxy.
    pub(super) async fn tunnel(
        &self,
        tcp: TcpStream,
        (host, port): (&str, u16),
        tasks: &Tasks,
    ) -> Result<TokioIo<Upgraded>, Error> {
        let failed =
            |error: hyper::Error| Error::Unreachable(format!("{host}: the proxy {}: {error}", self.host));
        let (mut sender, driver) = http1::handshake(TokioIo::new(tcp)).await.map_err(failed)?;
        tasks.spawn("proxy connection", driver.with_upgrades());
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = http::Request::connect(&authority).header(header::HOST, &authority);
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| Error::Invalid(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(Error::Unreachable(format!(
                "{host}: the proxy {} says {}",
                self.host,
                answer.status()
            )));
        }
        hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(failed)
    }
}

/// Whether the proxy may be asked for a way to `host`, as far as that can be said without a look-up: of addresses, and of the
/// names of the machine itself.
pub(super) fn may_lead_to(host: &str, guard: &Guard) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => guard.permits(address),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name != "localhost" && !name.ends_with(".localhost") && !is_number(&name)
        }
    }
}

/// Whether a name is an IPv4 address in one of its odd spellings, such as `127.1`, `0x7f000001` or `2130706433`: no top-level domain
/// is a number.
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{Proxy, may_lead_to};
    use crate::Guard;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for (text, host, port) in
            [("http://proxy.example:3128", "proxy.example", 3128), ("http://[::1]", "::1", 80)]
        {
            let proxy = Proxy::read(text).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port));
        }
        for wrong in
            ["proxy.example:3128", "https://p.example", "http://u:p@p.example", "http://p.example/x", ""]
        {
            assert!(Proxy::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_in_any_spelling_and_names_of_this_machine_are_judged_as_they_stand() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap()]);
        for allowed in
            ["matrix.example", "1.1.1.1", "10.1.2.3", "localhost.example", "0xa.example", "1.example"]
        {
            assert!(may_lead_to(allowed, &guard), "{allowed}");
        }
        for refused in [
            "10.2.0.1",
            "127.0.0.1",
            "::1",
            "::ffff:7f00:1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.1",
            "127.0.0.1.",
            "0x7f000001",
            "0X7F.1",
            "127.0.0.0x1",
            "2130706433",
            "017700000001",
        ] {
            assert!(!may_lead_to(refused, &guard), "{refused}");
        }
    }
}
