//! Server access control lists of rooms.

use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::glob::{Glob, folded};

/// A compiled `m.room.server_acl`. Read leniently: a list that is no list is empty, an entry that is no text is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    ip_literals: bool,
    allow: Vec<Glob>,
    deny: Vec<Glob>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    allow_ip_literals: Value,
    #[serde(default)]
    allow: Value,
    #[serde(default)]
    deny: Value,
}

impl Acl {
    /// Reads the content of the state event. No event at all means that everybody is allowed: do not ask then.
    ///
    /// Specification: client-server API, "Server Access Control Lists (ACLs) for rooms".
    pub fn new(content: &RawValue) -> Self {
        let globs = |list: &Value| {
            let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
            entries.iter().filter_map(Value::as_str).map(Glob::new).collect()
        };
        match serde_json::from_str::<Content>(content.get()) {
            Ok(content) => Self {
                ip_literals: content.allow_ip_literals.as_bool().unwrap_or(true),
                allow: globs(&content.allow),
                deny: globs(&content.deny),
            },
            Err(_) => Self { ip_literals: true, allow: Vec::new(), deny: Vec::new() },
        }
    }

    /// Whether `server` may take part. Its port does not matter.
    pub fn allows(&self, server: &ServerName) -> bool {
        let host = folded(server.host());
        let listed = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&host));
        (self.ip_literals || !server.is_ip_literal()) && !listed(&self.deny) && listed(&self.allow)
    }
}

#[cfg(test)]
mod tests {
    use ruma::ServerName;
    use serde_json::{json, value::to_raw_value};

    use super::Acl;

    fn allows(content: &serde_json::Value, server: &str) -> bool {
        Acl::new(&to_raw_value(content).unwrap()).allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn deny_wins_then_allow_then_nobody() {
        let acl = json!({"allow": ["*"], "deny": ["*.evil.example", "EVIL.example"]});
        assert!(allows(&acl, "good.example") && allows(&acl, "good.example:8448") && allows(&acl, "1.2.3.4"));
        assert!(!allows(&acl, "evil.example:1") && !allows(&acl, "a.Evil.example"));
        assert!(!allows(&json!({}), "good.example"));
        assert!(!allows(&json!({"allow": "*"}), "good.example"));
        assert!(allows(&json!({"allow": [1, "good.*"]}), "good.example"));
    }

    #[test]
    fn ip_literals() {
        let acl = json!({"allow": ["*"], "allow_ip_literals": false});
        assert!(!allows(&acl, "1.2.3.4") && !allows(&acl, "1.2.3.4:80") && !allows(&acl, "[::1]:80"));
        assert!(allows(&acl, "a.example"));
    }

    #[test]
    fn sixty_thousand_globs_end() {
        let acl = json!({"allow": ["*"], "deny": vec!["*a*a*a*a*b"; 60_000]});
        assert!(allows(&acl, &"a".repeat(200)));
    }
}
