//! What a client asks for (client-server API, "Scope").

use ruma::OwnedDeviceId;

use crate::error::{Error, Result};

/// How scope tokens begin, and how they did before they were specified (MSC2967), which is what clients send.
const PREFIXES: [&str; 2] = ["urn:matrix:client:", "urn:matrix:org.matrix.msc2967.client:"];

/// The longest scope that is looked at, in bytes.
const LONGEST: usize = 2000;

/// A scope that can be granted: the whole client-server API with one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The device.
    pub(crate) device: OwnedDeviceId,
    /// What is granted, in the client's own words.
    pub(crate) text: String,
}

impl Scope {
    /// Reads a scope. Tokens that mean nothing here are left out (RFC 6749, section 3.3).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fits = |c: u8| matches!(c, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.len() > LONGEST || !text.bytes().all(fits) {
            return Err(Error::InvalidScope("a scope has tokens of ASCII characters, one space between two"));
        }
        let (mut granted, mut api, mut device) = (Vec::new(), false, None);
        for token in text.split(' ').filter(|token| !token.is_empty()) {
            let Some(rest) = PREFIXES.iter().find_map(|prefix| token.strip_prefix(prefix)) else { continue };
            if rest == "api:*" {
                api = true;
            } else if let Some(id) = rest.strip_prefix("device:") {
                if device.is_some_and(|other| other != id) {
                    return Err(Error::InvalidScope("one device can be asked for"));
                }
                device = Some(id);
            } else {
                continue;
            }
            granted.push(token);
        }
        let (Some(device), true) = (device, api) else {
            return Err(Error::InvalidScope("the scope must have urn:matrix:client:api:* and one device"));
        };
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if device.is_empty() || device.len() > 255 || !device.chars().all(unreserved) {
            return Err(Error::InvalidScope("device ids have 1 to 255 of A-Z a-z 0-9 - . _ ~"));
        }
        Ok(Self { device: device.into(), text: granted.join(" ") })
    }

    /// Whether every token of this scope is one of `granted`.
    pub(crate) fn within(asked: &str, granted: &str) -> bool {
        let has = |token: &str| granted.split(' ').any(|other| other == token);
        asked.split(' ').filter(|token| !token.is_empty()).all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn the_api_and_one_device_are_asked_for() {
        let stable = Scope::parse("urn:matrix:client:api:* urn:matrix:client:device:AAABBB").unwrap();
        assert_eq!(stable.device, "AAABBB");
        let today = "openid urn:matrix:org.matrix.msc2967.client:api:* \
                     urn:matrix:org.matrix.msc2967.client:device:A-._~1 email";
        let today = Scope::parse(today).unwrap();
        assert_eq!(today.device, "A-._~1");
        assert!(!today.text.contains("openid") && !today.text.contains("email"));
        let both = "urn:matrix:client:api:* urn:matrix:client:device:A urn:matrix:org.matrix.msc2967.client:device:A";
        assert_eq!(Scope::parse(both).unwrap().text, both);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("urn:matrix:client:api:* urn:matrix:client:device:{}", "x".repeat(256));
        for bad in [
            "",
            "openid",
            "urn:matrix:client:api:*",
            "urn:matrix:client:device:A",
            "urn:matrix:client:api:read urn:matrix:client:device:A",
            "urn:matrix:client:api:* urn:matrix:client:device:",
            "urn:matrix:client:api:* urn:matrix:client:device:A urn:matrix:client:device:B",
            "urn:matrix:client:api:* urn:matrix:client:device:a/b",
            "urn:matrix:client:api:* urn:matrix:client:device:é",
            "urn:matrix:client:api:*\nurn:matrix:client:device:A",
            "urn:matrix:client:api:* urn:matrix:client:device:\"A\"",
            &long,
        ] {
            assert_eq!(Scope::parse(bad).unwrap_err().code(), "invalid_scope", "{bad}");
        }
    }

    #[test]
    fn a_refresh_never_asks_for_more() {
        assert!(Scope::within("a", "a b") && Scope::within("b a", "a b") && Scope::within("", "a"));
        assert!(!Scope::within("a c", "a b"));
    }
}
