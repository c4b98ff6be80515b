//! The section `[sso]` of the configuration: logging in by identity providers that speak OpenID Connect.

use std::path::PathBuf;

use ruma::OwnedMxcUri;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{client_url, jose::Algorithm};
use crate::{Email, Profile, email::is_domain};

/// `[sso]`: without providers there is no single sign-on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SsoConfig {
    /// Addresses of clients that get their log-in token at once; before others do, the user is asked.
    pub trusted_clients: Vec<String>,
    /// The providers, in the order in which clients show them.
    pub providers: Vec<ProviderConfig>,
}

/// `[[sso.providers]]`: one identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What URLs and clients call it; letters, digits and `.`, `_`, `~`, `-`.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its icon in clients.
    #[serde(default)]
    pub icon: Option<OwnedMxcUri>,
    /// A brand that clients may know.
    #[serde(default)]
    pub brand: Option<String>,
    /// Its issuer URL, exactly as its discovery document has it.
    pub issuer: String,
    /// What it calls this server.
    pub client_id: String,
    /// The file with the secret it gave; none: this server is a public client.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// How the secret is shown.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// What is asked for; `openid` is among them.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// Levels of authentication that are asked for, best first.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// Levels of which one must have been reached; none: any.
    #[serde(default)]
    pub required_acr: Vec<String>,
    /// Signatures that are accepted.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Where the claims come from beside the ID token.
    #[serde(default)]
    pub userinfo: Userinfo,
    /// How far its e-mail addresses are believed.
    #[serde(default)]
    pub emails: EmailTrust,
    /// Whether whoever has the address of an account there is let into that account here.
    #[serde(default)]
    pub link_by_email: bool,
    /// Whether browsers can be sent to end their session there (RP-initiated logout).
    #[serde(default)]
    pub end_session: bool,
    /// Other domains under which an account may have the same address.
    #[serde(default)]
    pub email_fallbacks: Vec<EmailFallback>,
    /// What becomes of people without an account, and of those whose account is closed.
    #[serde(default)]
    pub accounts: NewAccounts,
}

/// `sso.providers.accounts`: what becomes of people without an account, and of those whose account is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewAccounts {
    /// Whether they get one, by the rules of registration with an e-mail address.
    pub create: bool,
    /// Whether a closed account is opened again for whoever logged in to it by this provider.
    pub reactivate: bool,
    /// The claim that the user name follows from, where it does not follow from the address.
    pub localpart_claim: String,
    /// The claims that make the display name, where it does not follow from the address.
    pub display_name_claims: Vec<String>,
}

impl Default for NewAccounts {
    fn default() -> Self {
        Self {
            create: true,
            reactivate: false,
            localpart_claim: "preferred_username".to_owned(),
            display_name_claims: vec!["name".to_owned()],
        }
    }
}

/// How the secret is shown to the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the header (`client_secret_basic`).
    #[default]
    Basic,
    /// In the body (`client_secret_post`).
    Post,
}

/// Where claims come from beside the ID token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Userinfo {
    /// The userinfo endpoint if there is one, signed or not.
    #[default]
    Any,
    /// The userinfo endpoint, whose answer must be signed.
    Signed,
    /// Nowhere.
    None,
}

/// How far the e-mail addresses of a provider are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmailTrust {
    /// Not at all: they are not looked at.
    Ignored,
    /// Those of which it says that it verified them (`email_verified`).
    #[default]
    Verified,
    /// All: it gives no address that is not its user's.
    Trusted,
}

/// An account may have its address under another domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailFallback {
    /// The domain that the provider says.
    pub from: String,
    /// The domain that the account may have instead.
    pub to: String,
}

impl EmailFallback {
    /// The same address under the other domain.
    pub(super) fn applied(&self, email: &Email) -> Option<Email> {
        let same = email.domain().eq_ignore_ascii_case(&self.from);
        same.then(|| Email::parse(&format!("{}@{}", email.local(), self.to)).ok()).flatten()
    }
}

impl SsoConfig {
    /// What is wrong: key below `sso` and sentence.
    pub fn problems(&self, profile: Profile) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for (index, text) in self.trusted_clients.iter().enumerate() {
            if client_url::Trusted::parse(text).is_none() {
                let sentence = "neither an http or https URL nor the beginning of one of an application";
                found.push((format!("trusted_clients.{index}"), sentence));
            }
        }
        for (index, provider) in self.providers.iter().enumerate() {
            if self.providers[..index].iter().any(|other| other.id == provider.id) {
                found.push((format!("providers.{index}.id"), "is there twice"));
            }
            let below = |(key, sentence)| (format!("providers.{index}.{key}"), sentence);
            found.extend(provider.problems(profile).into_iter().map(below));
        }
        found
    }
}

impl ProviderConfig {
    fn problems(&self, profile: Profile) -> Vec<(&'static str, &'static str)> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        let blind = self.emails == EmailTrust::Ignored;
        let domains = |rule: &EmailFallback| is_domain(&rule.from) && is_domain(&rule.to);
        let scope = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let checks = [
            (
                (1..=255).contains(&self.id.len()) && self.id.chars().all(plain),
                "id",
                "has 1 to 255 letters, digits and . _ ~ -",
            ),
            (!self.name.trim().is_empty(), "name", "is empty"),
            (
                is_issuer(&self.issuer),
                "issuer",
                "must be an https URL (http on this machine alone), without query",
            ),
            (!self.client_id.is_empty(), "client_id", "is empty"),
            (self.scopes.iter().any(|scope| scope == "openid"), "scopes", "lacks `openid`"),
            (self.scopes.iter().all(scope), "scopes", "a scope has neither spaces nor other than ASCII"),
            (!self.algorithms.is_empty(), "algorithms", "is empty"),
            (
                !(blind && profile == Profile::Agents),
                "emails",
                "with the profile `agents` accounts follow from addresses",
            ),
            (!(blind && self.link_by_email), "link_by_email", "needs addresses that are believed"),
            (self.email_fallbacks.iter().all(domains), "email_fallbacks", "`from` and `to` must be domains"),
        ];
        checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, sentence)| (key, sentence)).collect()
    }
}

/// An issuer that can be talked with safely: over TLS, or on this machine.
fn is_issuer(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let safe = match url.scheme() {
        "https" => true,
        "http" => matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
        _ => false,
    };
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    safe && plain && url.host().is_some() && text.len() <= 255
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]
}

#[cfg(test)]
mod tests {
    use super::{ProviderConfig, SsoConfig};
    use crate::{Email, Profile};

    fn provider(more: &str) -> ProviderConfig {
        let text = format!(r#"{{"id":"p","name":"P","issuer":"https://id.example/","client_id":"c"{more}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn keys(provider: ProviderConfig, profile: Profile) -> Vec<String> {
        let config = SsoConfig { providers: vec![provider], ..SsoConfig::default() };
        config.problems(profile).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(keys(provider(""), Profile::Agents).is_empty());
        for (more, key) in [
            (r#","scopes":["email"]"#, "scopes"),
            (r#","scopes":["openid", "a b"]"#, "scopes"),
            (r#","algorithms":[]"#, "algorithms"),
            (r#","emails":"ignored""#, "emails"),
            (r#","email_fallbacks":[{"from":"x","to":"y.fr"}]"#, "email_fallbacks"),
        ] {
            assert_eq!(keys(provider(more), Profile::Agents), [format!("providers.0.{key}")], "{more}");
        }
        assert!(keys(provider(r#","emails":"ignored""#), Profile::Matrix).is_empty());
        for issuer in ["http://id.example", "ftp://x", "https://a@id.example", "https://id.example/?a", "x"] {
            let wrong = ProviderConfig { issuer: issuer.to_owned(), ..provider("") };
            assert_eq!(keys(wrong, Profile::Matrix), ["providers.0.issuer"], "{issuer}");
        }
        let twice = SsoConfig { providers: vec![provider(""), provider("")], ..SsoConfig::default() };
        assert_eq!(twice.problems(Profile::Matrix).len(), 1);
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"id":"p","algorithms":["HS256"]}"#).is_err());
    }

    #[test]
    fn a_fallback_is_of_a_whole_domain() {
        let rules = provider(r#","email_fallbacks":[{"from":"numerique.gouv.fr","to":"beta.gouv.fr"}]"#);
        let applied = |text: &str| {
            rules.email_fallbacks[0].applied(&Email::parse(text).unwrap()).map(|email| email.to_string())
        };
        assert_eq!(applied("a@numerique.gouv.fr").as_deref(), Some("a@beta.gouv.fr"));
        assert_eq!(applied("numerique.gouv.fr@x.fr"), None);
        assert_eq!(applied("a@evilnumerique.gouv.fr"), None);
        assert_eq!(applied("a@x.numerique.gouv.fr"), None);
    }
}
