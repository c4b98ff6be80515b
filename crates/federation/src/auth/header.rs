//! The text of an `X-Matrix` header, taken apart strictly.

use chappe_rules::{names, unpadded};
use ruma::OwnedServerName;

/// A header longer than this is refused unread, in bytes.
const MAX_BYTES: usize = 4096;

/// What a request claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) origin: OwnedServerName,
    /// Servers before version 1.3 of the specification leave it out; the signature covers it all the same.
    pub(crate) destination: Option<String>,
    /// Such as `ed25519:a_b`.
    pub(crate) key: String,
    pub(crate) signature: Vec<u8>,
}

impl Claimed {
    /// Reads the value of the one `Authorization` header. The error is for the log and for the sender.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, &'static str> {
        if value.len() > MAX_BYTES {
            return Err("the Authorization header is too long");
        }
        let text = std::str::from_utf8(value).map_err(|_| "the Authorization header is not text")?;
        let (scheme, parameters) =
            text.split_once(' ').ok_or("the Authorization header has no parameters")?;
        if !scheme.eq_ignore_ascii_case("X-Matrix") {
            return Err("the Authorization header is not of the scheme X-Matrix");
        }
        let mut found = Found::default();
        let mut rest = parameters.trim();
        while !rest.is_empty() {
            let (name, value, after) = parameter(rest)?;
            found.take(name, value)?;
            rest = after;
        }
        found.finish()
    }
}

#[derive(Default)]
struct Found {
    origin: Option<String>,
    destination: Option<String>,
    key: Option<String>,
    sig: Option<String>,
}

impl Found {
    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        let slot = match name.to_ascii_lowercase().as_str() {
            "origin" => &mut self.origin,
            "destination" => &mut self.destination,
            "key" => &mut self.key,
            "sig" => &mut self.sig,
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err("a parameter of the Authorization header is given twice"),
        }
    }

    fn finish(self) -> Result<Claimed, &'static str> {
        let origin = self.origin.ok_or("the Authorization header lacks origin")?;
        let key = self.key.ok_or("the Authorization header lacks key")?;
        let sig = self.sig.ok_or("the Authorization header lacks sig")?;
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !key.strip_prefix("ed25519:").is_some_and(|id| !id.is_empty() && id.bytes().all(sound)) {
            return Err("key is not the id of an ed25519 key");
        }
        let signature = unpadded::decode(&sig).ok_or("sig is not base64")?;
        Ok(Claimed {
            origin: names::strict(&origin).ok_or("origin is not a server name")?,
            destination: self.destination,
            key,
            signature,
        })
    }
}

/// One `name=value` and what comes after its comma.
fn parameter(text: &str) -> Result<(&str, String, &str), &'static str> {
    let (name, rest) = text.split_once('=').ok_or("a parameter has no value")?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(token) {
        return Err("a parameter has no name");
    }
    let rest = rest.trim_start();
    let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
        quoted_string(quoted)?
    } else {
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        // Older servers do not quote what has a colon or a slash in it.
        let plain = |byte: u8| token(byte) || b":/[]=".contains(&byte);
        if end == 0 || !rest[..end].bytes().all(plain) {
            return Err("a value needs quotes");
        }
        (rest[..end].to_owned(), &rest[end..])
    };
    let after = after.trim_start();
    match after.strip_prefix(',') {
        Some(more) => Ok((name, value, more.trim_start())),
        None if after.is_empty() => Ok((name, value, "")),
        None => Err("parameters are not separated by commas"),
    }
}

/// The text up to the closing quote, unescaped, and what comes after it.
fn quoted_string(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(chars.next().ok_or("a quoted value does not end")?.1),
            _ => value.push(char),
        }
    }
    Err("a quoted value does not end")
}

#[cfg(test)]
mod tests {
    use chappe_rules::names;
    use proptest::prelude::*;

    use super::Claimed;

    #[test]
    fn forms_that_servers_send_are_read() {
        for text in [
            r#"X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k_1",sig="AAAA""#,
            "X-Matrix origin=a.example:8448,key=ed25519:k_1,sig=AAAA",
            r#"x-matrix  ORIGIN = "a.example:8448" , key="ed25519:k\_1" ,sig="AAAA" , other=1"#,
            r#"X-Matrix origin="a.example:8448",key="ed25519:k_1",sig="AAAA","#,
            r#"X-Matrix origin="a.example:8448",key="ed25519:k_1",sig="AA_-""#,
            "X-Matrix origin=a.example:8448,key=ed25519:k_1,sig=AA-_====",
        ] {
            let claimed = Claimed::parse(text.as_bytes()).unwrap();
            assert_eq!(claimed.origin, "a.example:8448");
            assert_eq!((claimed.key.as_str(), claimed.signature.len()), ("ed25519:k_1", 3));
        }
    }

    #[test]
    fn tricks_are_refused() {
        let long = format!("X-Matrix origin=\"{}\"", "a".repeat(5000));
        for text in [
            "",
            "X-Matrix",
            "Bearer abc",
            "X-Matrix origin=a.example",
            r#"X-Matrix origin="a.example",origin="b.example",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="AAAA",sig="BBBB""#,
            r#"X-Matrix origin="a.example" key="ed25519:k" sig="AAAA""#,
            r#"X-Matrix origin="a.example,key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="AAAA"#,
            r#"X-Matrix origin="a.example\",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a example",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="@evil:a.example",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example/../b",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example.",key="ed25519:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example",key="rsa:k",sig="AAAA""#,
            r#"X-Matrix origin="a.example",key="ed25519:",sig="AAAA""#,
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="%%%%A""#,
            r#"X-Matrix ="a.example",key="ed25519:k",sig="AAAA""#,
            &long,
        ] {
            assert!(Claimed::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Claimed::parse(b"X-Matrix origin=\"\xff\"").is_err());
    }

    #[test]
    fn a_mutated_header_is_a_claim_or_an_error() {
        chappe_fuzz::Fuzz::of(env!("CARGO_MANIFEST_DIR"), "x-matrix").run(|bytes| {
            match Claimed::parse(bytes) {
                Ok(claimed) => {
                    assert!(names::is_strict(&claimed.origin) && claimed.key.starts_with("ed25519:"));
                    assert!(bytes.len() <= super::MAX_BYTES);
                    "a claim"
                }
                Err(error) => error,
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn whatever_comes_is_a_claim_or_an_error(
            junk in "(X-Matrix )?\\PC{0,80}",
            parameters in prop::collection::vec(
                ("origin|destination|key|sig|ORIGIN|x", "[a-z0-9.:/\\\\\"@, -]{0,20}|a\\.example|ed25519:k|AAAA", any::<bool>()),
                0..6,
            ),
        ) {
            let written = parameters.iter().map(|(name, value, quoted)| {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                if *quoted { format!("{name}=\"{escaped}\"") } else { format!("{name}={value}") }
            });
            let header = format!("X-Matrix {}", written.collect::<Vec<_>>().join(","));
            for text in [junk, header] {
                let Ok(claimed) = Claimed::parse(text.as_bytes()) else { continue };
                prop_assert!(names::is_strict(&claimed.origin));
                prop_assert!(claimed.key.starts_with("ed25519:"));
                let times = |name: &str| parameters.iter().filter(|(n, ..)| n.eq_ignore_ascii_case(name)).count();
                prop_assert!(["origin", "key", "sig", "destination"].iter().all(|name| times(name) <= 1));
            }
        }
    }
}
