//! Which web addresses may be fetched.

use ring::digest::{SHA256, digest};
use url::{Host, Url};

use crate::{Error, config::Previews};

/// Longest address, in bytes.
const LONGEST: usize = 4_096;

/// The address of something on the web that may be fetched: `http` or `https`, no credentials, a port and a host that
/// the configuration lets through. Where its name leads to is the outbound guard's to judge.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// What a client asks about.
    pub(super) fn parse(text: &str, rules: &Previews) -> Result<Self, Error> {
        if text.len() > LONGEST {
            return Err(Error::NotAWebAddress("it is too long"));
        }
        Self::checked(Url::parse(text).map_err(|_| Error::NotAWebAddress("it cannot be read"))?, rules)
    }

    /// What a page links to.
    pub(super) fn linked(&self, base: Option<&str>, link: &str, rules: &Previews) -> Result<Self, Error> {
        if link.len() > LONGEST || base.is_some_and(|base| base.len() > LONGEST) {
            return Err(Error::NotAWebAddress("it is too long"));
        }
        let unreadable = |_| Error::NotAWebAddress("it cannot be read");
        let base = base.map(|base| self.0.join(base)).transpose().map_err(unreadable)?;
        Self::checked(base.as_ref().unwrap_or(&self.0).join(link).map_err(unreadable)?, rules)
    }

    /// Where a redirect leads, never from `https` to `http`.
    pub(super) fn redirected(&self, link: &str, rules: &Previews) -> Result<Self, Error> {
        let next = self.linked(None, link, rules).map_err(|_| Error::PageFailed)?;
        if self.0.scheme() == "https" && next.0.scheme() != "https" {
            return Err(Error::PageFailed);
        }
        Ok(next)
    }

    fn checked(mut url: Url, rules: &Previews) -> Result<Self, Error> {
        url.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::NotAWebAddress("only http and https are fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::NotAWebAddress("it has credentials in it"));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !rules.ports.is_empty() && !rules.ports.contains(&port) {
            return Err(Error::HostNotAllowed);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
            Some(address) => address.to_string(),
            None => return Err(Error::NotAWebAddress("it has no host")),
        };
        let among = |hosts: &[String]| hosts.iter().any(|pattern| matches(pattern, &host));
        if among(&rules.denied_hosts) || !(rules.allowed_hosts.is_empty() || among(&rules.allowed_hosts)) {
            return Err(Error::HostNotAllowed);
        }
        Ok(Self(url))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// By what its preview is kept.
    pub(super) fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, self.as_str().as_bytes()).as_ref());
        key
    }
}

/// What users look at is nobody's business: it does not get into a log by accident.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// Whether a pattern of the configuration is a host as URLs have it, or `*.` and a domain.
pub fn is_host_pattern(pattern: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let (below, host) = match pattern.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, &*pattern),
    };
    let is_plain = |parsed: &Host| !host.contains('*') && parsed.to_string() == host;
    Host::parse(host).is_ok_and(|parsed| is_plain(&parsed) && (!below || matches!(parsed, Host::Domain(_))))
}

/// `*.` stands for everything below a domain, not for the domain itself. Addresses are compared as they are written in URLs.
fn matches(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, is_host_pattern};
    use crate::{Error, config::Previews};

    fn rules() -> Previews {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        Previews {
            allowed_hosts: hosts(&["*.gouv.fr", "gouv.fr", "192.0.2.1"]),
            denied_hosts: hosts(&["*.secret.gouv.fr", "Intra.gouv.fr"]),
            ..Previews::default()
        }
    }

    #[test]
    fn only_the_web_and_no_credentials() {
        let open = Previews::default();
        for bad in [
            "ftp://a.fr/",
            "file:///etc/passwd",
            "data:text/html,x",
            "javascript:alert(1)",
            "https://user@a.fr/",
            "https://user:pass@a.fr/",
            "https://:pass@a.fr/",
            "//a.fr/",
            "",
            "http://",
            &format!("https://a.fr/{}", "x".repeat(5_000)),
        ] {
            assert!(matches!(Address::parse(bad, &open), Err(Error::NotAWebAddress(_))), "{bad}");
        }
        for port in [22, 8080, 65_535] {
            let address = format!("https://a.fr:{port}/");
            assert!(matches!(Address::parse(&address, &open), Err(Error::HostNotAllowed)), "{port}");
            let any = Previews { ports: Vec::new(), ..Previews::default() };
            assert!(Address::parse(&address, &any).is_ok());
        }
        assert_eq!(Address::parse("HTTPS://A.fr/x#part", &open).unwrap().as_str(), "https://a.fr/x");
    }

    #[test]
    fn hosts_are_let_through_as_listed_and_denying_wins() {
        for good in ["https://a.gouv.fr/", "http://gouv.fr/", "https://A.B.GOUV.FR./x", "http://192.0.2.1/"] {
            assert!(Address::parse(good, &rules()).is_ok(), "{good}");
        }
        for bad in [
            "https://example.org/",
            "https://notgouv.fr/",
            "https://gouv.fr.example.org/",
            "https://x.secret.gouv.fr/",
            "https://x.secret.gouv.fr./",
            "https://intra.gouv.fr/",
            "https://INTRA.gouv.fr./",
            "http://3221225986/",
        ] {
            assert!(matches!(Address::parse(bad, &rules()), Err(Error::HostNotAllowed)), "{bad}");
        }
        // The same address, written as one number.
        assert!(Address::parse("http://3221225985/", &rules()).is_ok());
    }

    #[test]
    fn links_and_redirects_meet_the_same_rules() {
        let page = Address::parse("https://a.gouv.fr/x/y?z", &rules()).unwrap();
        let linked = |base, link| page.linked(base, link, &rules());
        assert_eq!(linked(None, "p.png").unwrap().as_str(), "https://a.gouv.fr/x/p.png");
        assert_eq!(linked(Some("/b/"), "p.png").unwrap().as_str(), "https://a.gouv.fr/b/p.png");
        assert_eq!(linked(None, "//c.gouv.fr/p").unwrap().as_str(), "https://c.gouv.fr/p");
        for bad in ["https://example.org/p", "data:image/png;base64,AA", "file:///p", "//x.secret.gouv.fr/p"]
        {
            assert!(linked(None, bad).is_err(), "{bad}");
        }
        assert!(page.redirected("http://a.gouv.fr/", &rules()).is_err());
        assert!(page.redirected("https://example.org/", &rules()).is_err());
        assert!(page.redirected("/other", &rules()).is_ok());
    }

    #[test]
    fn patterns_are_hosts() {
        for good in ["a.fr", "*.A.fr", "192.0.2.1", "[2001:db8::1]", "localhost", "xn--cole-9oa.fr"] {
            assert!(is_host_pattern(good), "{good}");
        }
        let bad = [
            "",
            "*",
            "*.",
            "a.*.fr",
            "https://a.fr",
            "a.fr/x",
            "*.192.0.2.1",
            "3221225985",
            "école.fr",
            "::1",
        ];
        for bad in bad {
            assert!(!is_host_pattern(bad), "{bad}");
        }
    }
}
