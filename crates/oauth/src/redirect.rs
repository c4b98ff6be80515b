//! Where answers may be sent (client-server API, "Redirect URI validation"; RFC 8252, section 7).

use url::{Host, Url, form_urlencoded};

use crate::error::Error;

/// The longest address of a client that is taken, in bytes.
pub(crate) const LONGEST: usize = 512;

/// The loopback interface as redirect URIs may name it.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What kind of application a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Application {
    Web,
    Native,
}

/// How parameters are added to a redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Query,
    Fragment,
}

/// The client that addresses are judged for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The host of its `client_uri`.
    pub(crate) host: &'a str,
    pub(crate) application: Application,
    /// Whether `http` is taken from a web client.
    pub(crate) insecure: bool,
}

/// What stands between the scheme's `://` and the path.
fn authority(uri: &str) -> Option<(&str, &str)> {
    let (_, rest) = uri.split_once("://")?;
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// The host of a web address without a user, in lower case and only of the characters that host names have.
pub(crate) fn host(uri: &str, insecure: bool) -> Option<String> {
    let plain = |c: u8| c.is_ascii_graphic() && !b"\"'<>\\`#;,".contains(&c);
    if uri.len() > LONGEST || !uri.bytes().all(plain) {
        return None;
    }
    let url = Url::parse(uri).ok()?;
    let (authority, _) = authority(uri)?;
    let secure = url.scheme() == "https" && uri.starts_with("https://");
    let tried = insecure && url.scheme() == "http" && uri.starts_with("http://");
    if authority.contains('@') || !(secure || tried) {
        return None;
    }
    // Written as it is understood: no parser has mended it.
    let written = authority.split_once(':').map_or(authority, |(host, _)| host);
    if !url.host_str()?.eq_ignore_ascii_case(written) {
        return None;
    }
    match url.host()? {
        Host::Domain(name) => {
            let fits = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'-');
            let dotted = name.contains('.') && !name.starts_with('.') && !name.ends_with('.');
            (fits && (dotted || insecure)).then(|| name.to_owned())
        }
        Host::Ipv4(address) if insecure => Some(address.to_string()),
        _ => None,
    }
}

/// Whether a host is that of the client or below it.
pub(crate) fn is_related(host: &str, owner: &str) -> bool {
    host == owner || host.strip_suffix(owner).is_some_and(|rest| rest.ends_with('.'))
}

/// Says no to a redirect URI that a client may not register.
pub(crate) fn check(uri: &str, owner: Owner<'_>) -> Result<(), Error> {
    let refused = |sentence| Err(Error::InvalidRedirectUri(sentence));
    let plain = |c: u8| c.is_ascii_graphic() && !b"\"'<>\\`#".contains(&c);
    if uri.len() > LONGEST || !uri.bytes().all(plain) {
        return refused("a redirect URI has at most 512 plain characters and no fragment");
    }
    let Ok(url) = Url::parse(uri) else { return refused("a redirect URI cannot be read") };
    let Some(rest) = uri.strip_prefix(url.scheme()).and_then(|rest| rest.strip_prefix(':')) else {
        return refused("the scheme of a redirect URI is written in small letters");
    };
    match (url.scheme(), owner.application) {
        ("https", _) => web(uri, owner),
        ("http", Application::Web) if owner.insecure => web(uri, owner),
        ("http", Application::Native) => match authority(uri) {
            Some((host, _)) if rest.starts_with("//") && LOOPBACK.contains(&host) => Ok(()),
            _ => refused("an http redirect URI is one of the loopback interface without a port"),
        },
        (scheme, Application::Native) => {
            let labels: Vec<&str> = owner.host.rsplit('.').collect();
            if rest.starts_with("//") {
                return refused("a redirect URI with a scheme of one's own has no authority");
            }
            if !owner.host.contains('.') || !is_below(scheme, &labels.join(".")) {
                return refused("a scheme of one's own begins with the host of client_uri backwards");
            }
            Ok(())
        }
        _ => refused("the redirect URI of a web client is an https address"),
    }
}

fn web(uri: &str, owner: Owner<'_>) -> Result<(), Error> {
    match host(uri, owner.insecure) {
        Some(host) if is_related(&host, owner.host) => Ok(()),
        _ => Err(Error::InvalidRedirectUri("a redirect URI is on the host of client_uri or below it")),
    }
}

fn is_below(scheme: &str, reversed: &str) -> bool {
    scheme.strip_prefix(reversed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a request may name this redirect URI where that one is registered: the same, but for the port of the loopback
/// interface.
pub(crate) fn is_same(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let loopback = |host: &str| registered.starts_with("http://") && LOOPBACK.contains(&host);
    let Some((host, path)) = authority(registered).filter(|(host, _)| loopback(host)) else { return false };
    let Some(rest) = asked.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host)) else {
        return false;
    };
    let Some(port) = rest.strip_prefix(':').and_then(|rest| rest.strip_suffix(path)) else { return false };
    port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A redirect URI with parameters.
pub(crate) fn with(uri: &str, mode: Mode, parameters: &[(&str, &str)]) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(parameters);
    let sign = match mode {
        Mode::Fragment => '#',
        Mode::Query if uri.contains('?') => '&',
        Mode::Query => '?',
    };
    format!("{uri}{sign}{}", encoded.finish())
}

/// What a page's policy has to say so that its form may lead to this redirect URI.
pub(crate) fn source(uri: &str) -> String {
    match Url::parse(uri) {
        // The grammar of policies has no addresses of version 6.
        Ok(url) if matches!(url.host(), Some(Host::Ipv6(_))) => format!("{}:", url.scheme()),
        Ok(url) if url.host().is_some() => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => "'none'".to_owned(),
    }
}

/// What people are told of where an answer goes.
pub(crate) fn place(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(url) => url.host_str().map_or_else(|| url.scheme().to_owned(), str::to_owned),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Application, Mode, Owner, check, host, is_same, source, with};

    fn refused(uri: &str, application: Application) -> bool {
        check(uri, Owner { host: "example.com", application, insecure: false }).is_err()
    }

    #[test]
    fn web_clients_are_answered_on_their_own_host() {
        for good in [
            "https://example.com/callback",
            "https://example.com",
            "https://app.example.com/callback",
            "https://example.com:5173/?query=value",
        ] {
            assert!(!refused(good, Application::Web) && !refused(good, Application::Native), "{good}");
        }
        for bad in [
            "https://example.com/callback#fragment",
            "https://example.com/#",
            "http://example.com/callback",
            "http://localhost/",
            "com.example:/",
            "https://example.org/",
            "https://evilexample.com/",
            "https://example.com.evil.org/",
            "https://user@example.com/",
            "https://@example.com/",
            "https://evil.org@example.com/",
            "https://example.com\\@evil.org/",
            "https:example.com/",
            "https:///example.com/",
            "HTTPS://example.com/",
            "https://example.com/ ",
            "https://example.com/\n",
            "https://example.com/\"><script>",
            "https://93.184.215.14/",
            "https://[::1]/",
            "//example.com/",
            "",
            "/callback",
            "javascript:alert(1)",
            "data:text/html,x",
        ] {
            assert!(refused(bad, Application::Web), "{bad}");
        }
        assert!(refused(&format!("https://example.com/{}", "x".repeat(600)), Application::Web));
    }

    #[test]
    fn native_clients_have_loopback_and_schemes_of_their_own() {
        for good in [
            "com.example.app:/callback",
            "com.example:/",
            "com.example:callback",
            "http://localhost/callback",
            "http://127.0.0.1/callback",
            "http://[::1]/callback",
            "http://127.0.0.1",
        ] {
            assert!(!refused(good, Application::Native), "{good}");
        }
        for bad in [
            "example:/callback",
            "com.examples:/callback",
            "com.evil.example:/",
            "com.example.app://callback",
            "https://localhost/callback",
            "http://localhost:1234/callback",
            "http://localhost:80/callback",
            "http://127.0.0.2/callback",
            "http://127.0.0.1.evil.org/",
            "http://localhost@evil.org/",
            "http:localhost/",
            "javascript:alert(1)",
            "COM.EXAMPLE:/",
        ] {
            assert!(refused(bad, Application::Native), "{bad}");
        }
    }

    #[test]
    fn only_the_port_of_the_loopback_interface_is_free() {
        assert!(is_same("https://example.com/a", "https://example.com/a"));
        assert!(is_same("http://127.0.0.1/a?b=c", "http://127.0.0.1:5173/a?b=c"));
        assert!(is_same("http://127.0.0.1/", "http://127.0.0.1/"));
        assert!(is_same("http://[::1]/", "http://[::1]:80/"));
        assert!(is_same("http://localhost", "http://localhost:9"));
        for (registered, asked) in [
            ("https://example.com/a", "https://example.com/a/"),
            ("https://example.com/a", "https://example.com/a?b"),
            ("https://example.com/a", "https://example.com:8443/a"),
            ("https://example.com/a", "https://EXAMPLE.com/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:5173/b"),
            ("http://127.0.0.1/a", "http://localhost:5173/a"),
            ("http://127.0.0.1/a", "https://127.0.0.1:5173/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:5173@evil.org/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:evil/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:70000/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:/a"),
            ("http://127.0.0.1/a", "http://127.0.0.1:+80/a"),
            ("http://127.0.0.1", "http://127.0.0.1:80.evil.org"),
        ] {
            assert!(!is_same(registered, asked), "{asked}");
        }
    }

    #[test]
    fn answers_are_put_where_the_client_wants_them() {
        let parameters = [("code", "a&b=c"), ("state", "é\r\n#")];
        let encoded = "code=a%26b%3Dc&state=%C3%A9%0D%0A%23";
        let query = |uri| with(uri, Mode::Query, &parameters);
        assert_eq!(query("https://a.fr/"), format!("https://a.fr/?{encoded}"));
        assert_eq!(query("https://a.fr/?x=1"), format!("https://a.fr/?x=1&{encoded}"));
        assert_eq!(query("fr.a:/"), format!("fr.a:/?{encoded}"));
        let fragment = with("https://a.fr/?x=1", Mode::Fragment, &parameters);
        assert_eq!(fragment, format!("https://a.fr/?x=1#{encoded}"));
    }

    #[test]
    fn policies_name_the_place_and_nothing_more() {
        assert_eq!(source("https://a.fr/b?c"), "https://a.fr");
        assert_eq!(source("http://127.0.0.1:5173/b"), "http://127.0.0.1:5173");
        assert_eq!(source("http://[::1]:5173/b"), "http:");
        assert_eq!(source("fr.a.app:/b"), "fr.a.app:");
        for bad in ["https://a.fr;script-src/", "https://a,b.fr/", "https://a b.fr/", "http://a.fr/"] {
            assert_eq!(host(bad, false), None, "{bad}");
        }
    }
}
