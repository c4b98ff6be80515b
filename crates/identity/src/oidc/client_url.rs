//! Where a log-in token may go: addresses of clients, pure.

use url::Url;

/// Bytes of a client's address.
const LONGEST: usize = 1800;
/// Schemes that show or run something in the browser itself, or leave the Web for what is no client.
const REFUSED: &[&str] = &[
    "about",
    "blob",
    "cid",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "jar",
    "mailto",
    "sms",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];
/// The parameter that the token goes in.
const PARAMETER: &str = "loginToken";

/// Why an address is no client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientUrl {
    /// Beyond 1,800 bytes.
    #[error("redirectUrl is too long")]
    TooLong,
    /// Not an absolute URL of printable characters.
    #[error("redirectUrl is not a URL")]
    NotAUrl,
    /// `javascript:` and its kin.
    #[error("redirectUrl has a scheme that no client has")]
    Scheme,
    /// A name before the host: people would take it for the host.
    #[error("redirectUrl has a user name")]
    UserName,
}

/// The address of a client, to which a log-in token may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientUrl(Url);

impl ClientUrl {
    /// Parses what a request says.
    pub fn parse(text: &str) -> Result<Self, InvalidClientUrl> {
        if text.len() > LONGEST {
            return Err(InvalidClientUrl::TooLong);
        }
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidClientUrl::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| InvalidClientUrl::NotAUrl)?;
        if REFUSED.contains(&url.scheme()) {
            return Err(InvalidClientUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidClientUrl::UserName);
        }
        Ok(Self(url))
    }

    /// What people see of it: everything up to the path, of an application its scheme.
    pub fn place(&self) -> String {
        let scheme = self.0.scheme();
        match (scheme, self.0.host_str()) {
            ("http" | "https", Some(host)) => {
                let port = self.0.port().map_or_else(String::new, |port| format!(":{port}"));
                format!("{scheme}://{host}{port}")
            }
            _ => format!("{scheme}:"),
        }
    }

    /// The address with the token, in place of any it had.
    pub fn with_token(&self, token: &str) -> String {
        let mut url = self.0.clone();
        let is_token = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            url::form_urlencoded::parse(name.as_bytes()).next().is_some_and(|(name, _)| name == PARAMETER)
        };
        let query = url.query().unwrap_or_default().to_owned();
        if query.split('&').any(|pair| is_token(&pair)) {
            let kept: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
            url.set_query(Some(&kept.join("&")).filter(|query| !query.is_empty()).map(String::as_str));
        }
        url.query_pairs_mut().append_pair(PARAMETER, token);
        url.into()
    }
}

impl std::fmt::Display for ClientUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Addresses of the configuration that get their token without a question.
#[derive(Clone, Debug)]
pub(super) struct Trusted {
    url: Url,
    /// An application's scheme alone, whatever follows.
    whole_scheme: bool,
}

impl Trusted {
    /// Reads an entry: `https://app.example.fr/`, or `tchap://connect`, or `tchap:` for all of an application's scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = ClientUrl::parse(text).ok()?.0;
        let web = matches!(url.scheme(), "http" | "https");
        let bare = url.host_str().is_none_or(str::is_empty) && matches!(url.path(), "" | "/");
        let plain = url.query().is_none() && url.fragment().is_none();
        (plain && !(web && bare)).then_some(Self { url, whole_scheme: !web && bare })
    }

    /// Whether an address is this one or below it: compared part by part, never as a text.
    pub(super) fn covers(&self, client: &ClientUrl) -> bool {
        let (own, other) = (&self.url, &client.0);
        if own.scheme() != other.scheme() {
            return false;
        }
        if self.whole_scheme {
            return true;
        }
        let same_host =
            own.host() == other.host() && own.port_or_known_default() == other.port_or_known_default();
        let (own_path, path) = (own.path().trim_end_matches('/'), other.path());
        let below = path.strip_prefix(own_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Dots and slashes that are written in code might be understood behind us.
        let written = path.to_ascii_lowercase();
        let odd = path.contains('\\') || ["%2e", "%2f", "%5c"].iter().any(|code| written.contains(code));
        same_host && below && !odd
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientUrl, InvalidClientUrl, Trusted};

    fn client(text: &str) -> ClientUrl {
        ClientUrl::parse(text).unwrap()
    }

    #[test]
    fn what_is_no_client_gets_nothing() {
        for (text, error) in [
            ("", InvalidClientUrl::NotAUrl),
            ("/path", InvalidClientUrl::NotAUrl),
            ("//evil.example", InvalidClientUrl::NotAUrl),
            ("app.example", InvalidClientUrl::NotAUrl),
            ("https://", InvalidClientUrl::NotAUrl),
            ("https://a b/", InvalidClientUrl::NotAUrl),
            ("https://a/\r\nSet-Cookie: x", InvalidClientUrl::NotAUrl),
            ("java\tscript:alert(1)", InvalidClientUrl::NotAUrl),
            ("javascript:alert(1)", InvalidClientUrl::Scheme),
            ("JavaScript://a/%0aalert(1)", InvalidClientUrl::Scheme),
            ("data:text/html,<script>", InvalidClientUrl::Scheme),
            ("vbscript:x", InvalidClientUrl::Scheme),
            ("file:///etc/passwd", InvalidClientUrl::Scheme),
            ("https://matrix.example.gouv.fr@evil.example/", InvalidClientUrl::UserName),
            ("https://a:b@evil.example/", InvalidClientUrl::UserName),
        ] {
            assert_eq!(ClientUrl::parse(text), Err(error), "{text:?}");
        }
        let long = format!("https://a/{}", "x".repeat(2000));
        assert_eq!(ClientUrl::parse(&long), Err(InvalidClientUrl::TooLong));
    }

    #[test]
    fn the_token_goes_into_the_query_and_replaces_others() {
        for (text, expected) in [
            ("https://a.fr", "https://a.fr/?loginToken=t"),
            ("https://a.fr/x?y=1&z#/home", "https://a.fr/x?y=1&z&loginToken=t#/home"),
            ("https://a.fr/?loginToken=old&y=1&login%54oken=b", "https://a.fr/?y=1&loginToken=t"),
            ("https://a.fr/?loginToken=old", "https://a.fr/?loginToken=t"),
            ("tchap://connect", "tchap://connect?loginToken=t"),
            ("io.element.desktop:/vector/", "io.element.desktop:/vector/?loginToken=t"),
        ] {
            assert_eq!(client(text).with_token("t"), expected, "{text}");
        }
    }

    #[test]
    fn people_see_the_host() {
        for (text, expected) in [
            ("https://www.tchap.gouv.fr/#/x", "https://www.tchap.gouv.fr"),
            ("http://localhost:8080/a", "http://localhost:8080"),
            ("tchap://connect", "tchap:"),
            ("https://\u{442}chap.gouv.fr/", "https://xn--chap-p6d.gouv.fr"),
        ] {
            assert_eq!(client(text).place(), expected, "{text}");
        }
    }

    #[test]
    fn trust_is_of_a_host_and_a_path_not_of_a_beginning() {
        let covers = |entry: &str, text: &str| Trusted::parse(entry).unwrap().covers(&client(text));
        for (entry, text) in [
            ("https://app.fr", "https://app.fr/"),
            ("https://app.fr/", "https://app.fr:443/x?y#z"),
            ("https://app.fr/web", "https://app.fr/web/#/x"),
            ("https://app.fr/web/", "https://app.fr/web"),
            ("tchap://connect", "tchap://connect?x"),
            ("tchap:", "tchap://anything/at/all"),
            ("tchap://", "tchap://connect"),
        ] {
            assert!(covers(entry, text), "{entry} {text}");
        }
        for (entry, text) in [
            ("https://app.fr", "http://app.fr/"),
            ("https://app.fr", "https://app.fr.evil.fr/"),
            ("https://app.fr", "https://app.fr:8443/"),
            ("https://app.fr", "https://evil.fr/app.fr"),
            ("https://app.fr/web", "https://app.fr/webevil"),
            ("https://app.fr/web", "https://app.fr/web/../evil"),
            ("https://app.fr/web", "https://app.fr/web/%2e%2e%2fevil"),
            ("https://app.fr/web", "https://app.fr/web/..%5cevil"),
            ("tchap://connect", "tchap://connected"),
            ("tchap://connect", "tchap:connect"),
            ("tchap:", "tchapx://connect"),
        ] {
            assert!(!covers(entry, text), "{entry} {text}");
        }
        for entry in ["", "app.fr", "https:", "https://app.fr/?x", "https://app.fr/#x", "javascript:"] {
            assert!(Trusted::parse(entry).is_none(), "{entry}");
        }
    }
}
