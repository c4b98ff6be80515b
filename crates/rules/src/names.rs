//! Strict server names: what may be asked about and connected to.

use std::net::{Ipv4Addr, Ipv6Addr};

use ruma::{OwnedServerName, ServerName};

/// The longest server name accepted, in bytes: it must fit into identifiers of 255 bytes.
const MAX_BYTES: usize = 230;

/// Reads a server name as strictly as the grammar allows; `None` when it is not one.
///
/// Beyond ruma: a port is 1 to 65535 in plain digits without leading zero; labels have 1 to 63 letters, digits and
/// inner hyphens; no trailing dot; a name whose last label is numeric must be a full IPv4 address.
///
/// Specification: appendices, "Server name".
pub fn strict(name: &str) -> Option<OwnedServerName> {
    let (host, port) = split(name)?;
    let port_is_good = port.is_none_or(|port| {
        !port.starts_with('0')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    });
    (name.len() <= MAX_BYTES && port_is_good && host_is_good(host)).then(|| ServerName::parse(name).ok())?
}

/// Whether an already parsed server name is also [`strict`].
pub fn is_strict(name: &ServerName) -> bool {
    strict(name.as_str()).is_some()
}

fn split(name: &str) -> Option<(&str, Option<&str>)> {
    if name.starts_with('[') {
        let end = name.find(']')? + 1;
        let (host, rest) = name.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    Some(name.split_once(':').map_or((name, None), |(host, port)| (host, Some(port))))
}

fn host_is_good(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok());
    }
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric =
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    host.split('.').all(label_is_good) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::strict;

    #[test]
    fn good_names() {
        for name in [
            "a.example",
            "localhost",
            "a.example:8448",
            "1.2.3.4",
            "1.2.3.4:80",
            "[::1]",
            "[::1]:8448",
            "xn--bcher-kva.example",
            "A.Example",
        ] {
            assert!(strict(name).is_some(), "{name}");
        }
    }

    #[test]
    fn hostile_names() {
        for name in [
            "",
            ":1",
            "a.example:",
            "a.example:0",
            "a.example:08",
            "a.example:+1",
            "a.example:65536",
            "a.example.",
            ".a.example",
            "a..example",
            "-a.example",
            "a-.example",
            "a@b",
            "a/b",
            "a%2fb",
            "a b",
            "a\n",
            "bücher.example",
            "a。example",
            "127.1",
            "0x7f.1",
            "2130706433",
            "1.2.3.4.5",
            "[::1",
            "[::1]x",
            "::1",
            "[::1%25eth0]",
            "a_b.example",
            "1.2.3.0x4",
        ] {
            assert!(strict(name).is_none(), "{name}");
        }
        assert!(strict(&format!("{}.example", "a".repeat(64))).is_none());
        assert!(strict(&vec!["aaaaaaaaa"; 30].join(".")).is_none());
    }
}
