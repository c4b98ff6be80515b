//! What clients register (client-server API, "Client metadata"; RFC 7591, section 2).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    redirect::{self, Application, Owner},
};

/// The grants that there are.
pub(crate) const AUTHORIZATION_CODE: &str = "authorization_code";
/// See above.
pub(crate) const REFRESH_TOKEN: &str = "refresh_token";
/// See above (RFC 8628).
pub(crate) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// All of them.
pub(crate) const GRANTS: [&str; 3] = [AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE];

/// Redirect URIs of one client.
const MOST_URIS: usize = 20;
/// The longest name of a client, in characters.
const LONGEST_NAME: usize = 100;

/// A client as it is kept and told: what was registered and is understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) client_uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logo_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tos_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_uri: Option<String>,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) token_endpoint_auth_method: String,
    pub(crate) response_types: Vec<String>,
    pub(crate) grant_types: Vec<String>,
    pub(crate) application_type: String,
}

fn wrong<T>(sentence: &'static str) -> Result<T> {
    Err(Error::InvalidClientMetadata(sentence.into()))
}

impl Metadata {
    /// Reads what a client wants to register; what is not understood is left out.
    pub(crate) fn parse(written: &Map<String, Value>, insecure: bool) -> Result<Self> {
        let Some(client_uri) = text(written, "client_uri")? else { return wrong("client_uri is missing") };
        let Some(host) = redirect::host(&client_uri, insecure) else {
            return wrong("client_uri must be an https address with a domain name and no user");
        };
        let (application, application_type) = match text(written, "application_type")?.as_deref() {
            None | Some("web") => (Application::Web, "web"),
            Some("native") => (Application::Native, "native"),
            Some(_) => return wrong("application_type is web or native"),
        };
        let method = text(written, "token_endpoint_auth_method")?;
        if method.is_some_and(|method| method != "none") {
            return wrong("the only token_endpoint_auth_method is none");
        }
        let page = |name| page(written, name, &host, insecure);
        let owner = Owner { host: &host, application, insecure };
        let metadata = Self {
            client_name: name(written)?,
            logo_uri: page("logo_uri")?,
            tos_uri: page("tos_uri")?,
            policy_uri: page("policy_uri")?,
            redirect_uris: redirect_uris(written, owner)?,
            token_endpoint_auth_method: "none".to_owned(),
            response_types: understood(written, "response_types", "code", &["code"])?,
            grant_types: understood(written, "grant_types", AUTHORIZATION_CODE, &GRANTS)?,
            application_type: application_type.to_owned(),
            client_uri,
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// What the fields must be together.
    fn check(&self) -> Result<()> {
        if self.may(AUTHORIZATION_CODE) {
            if self.redirect_uris.is_empty() {
                return Err(Error::InvalidRedirectUri("a redirect URI is missing"));
            }
            if self.response_types.is_empty() {
                return wrong("authorization_code goes with the response type code");
            }
        } else if !self.may(DEVICE_CODE) {
            return wrong("none of the grant_types is supported");
        }
        Ok(())
    }

    /// Whether the client registered for a kind of grant.
    pub(crate) fn may(&self, grant: &str) -> bool {
        self.grant_types.iter().any(|other| other == grant)
    }

    /// The host of the client's page.
    pub(crate) fn host(&self) -> String {
        redirect::host(&self.client_uri, true).unwrap_or_default()
    }

    /// What the client is called; nobody has checked that.
    pub(crate) fn name(&self) -> String {
        self.client_name.clone().unwrap_or_else(|| self.host())
    }
}

fn text(written: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match written.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::InvalidClientMetadata(format!("{name} must be a string").into())),
    }
}

/// A list of texts, or what stands for one that is not there.
fn list(written: &Map<String, Value>, name: &str, default: &[&str]) -> Result<Vec<String>> {
    let wrong = || Error::InvalidClientMetadata(format!("{name} must be a list of strings").into());
    match written.get(name) {
        None | Some(Value::Null) => Ok(default.iter().map(|text| (*text).to_owned()).collect()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Those of a list that are understood, in our order.
fn understood(
    written: &Map<String, Value>,
    name: &str,
    default: &str,
    known: &[&str],
) -> Result<Vec<String>> {
    let said = list(written, name, &[default])?;
    let is_said = |known: &&&str| said.iter().any(|said| said == **known);
    Ok(known.iter().filter(is_said).map(|known| (*known).to_owned()).collect())
}

fn name(written: &Map<String, Value>) -> Result<Option<String>> {
    let Some(name) = text(written, "client_name")? else { return Ok(None) };
    let name = name.trim();
    // Marks of direction would let a name rewrite the sentence around it.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if name.chars().count() > LONGEST_NAME || name.chars().any(hidden) {
        return wrong("client_name has at most 100 characters, none of them invisible");
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// The address of a page about the client. One that is not on its host or below it is left out: nobody is led from the name
/// of one host to another.
fn page(written: &Map<String, Value>, name: &str, owner: &str, insecure: bool) -> Result<Option<String>> {
    let Some(uri) = text(written, name)? else { return Ok(None) };
    let Some(host) = redirect::host(&uri, insecure) else {
        let sentence = format!("{name} must be an https address with a domain name and no user");
        return Err(Error::InvalidClientMetadata(sentence.into()));
    };
    Ok(redirect::is_related(&host, owner).then_some(uri))
}

fn redirect_uris(written: &Map<String, Value>, owner: Owner<'_>) -> Result<Vec<String>> {
    let uris = list(written, "redirect_uris", &[])?;
    if uris.len() > MOST_URIS {
        return Err(Error::InvalidRedirectUri("at most 20 redirect URIs"));
    }
    for uri in &uris {
        redirect::check(uri, owner)?;
    }
    Ok(uris)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Metadata;
    use crate::error::Error;

    fn parse(change: &Value) -> Result<Metadata, Error> {
        let mut written = json!({
            "client_name": "App", "client_uri": "https://example.com/", "application_type": "native",
            "redirect_uris": ["com.example:/"], "token_endpoint_auth_method": "none",
            "response_types": ["code"], "grant_types": ["authorization_code", "refresh_token"],
        });
        let fields = written.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            fields.insert(name.clone(), value.clone());
        }
        Metadata::parse(fields, false)
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let metadata = parse(&json!({
            "grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange", "refresh_token", "authorization_code"],
            "response_types": ["code", "id_token"], "contacts": ["a@example.com"], "client_name#fr": "Appli",
            "policy_uri": "https://www.example.com/policy",
        }));
        let metadata = metadata.unwrap();
        assert_eq!(metadata.grant_types, ["authorization_code", "refresh_token"]);
        assert_eq!(metadata.response_types, ["code"]);
        let told = serde_json::to_value(&metadata).unwrap();
        assert!(told.get("contacts").is_none() && told.get("client_name#fr").is_none());
        assert_eq!((metadata.name().as_str(), metadata.host().as_str()), ("App", "example.com"));
        assert_eq!(serde_json::from_value::<Metadata>(told).unwrap(), metadata);
    }

    #[test]
    fn pages_on_other_hosts_are_left_out_and_answers_are_not_sent_there() {
        let metadata = parse(&json!({
            "logo_uri": "https://example.com.evil.org/logo.png", "tos_uri": "https://evilexample.com/terms",
            "policy_uri": "https://www.example.com/policy",
        }));
        let metadata = metadata.unwrap();
        assert_eq!((metadata.logo_uri, metadata.tos_uri), (None, None));
        assert_eq!(metadata.policy_uri.as_deref(), Some("https://www.example.com/policy"));
        let foreign = json!({ "redirect_uris": ["https://evil.org/"], "tos_uri": "https://evil.org/" });
        assert_eq!(parse(&foreign).unwrap_err().code(), "invalid_redirect_uri");
    }

    #[test]
    fn a_client_of_devices_needs_no_redirect() {
        let device = "urn:ietf:params:oauth:grant-type:device_code";
        let metadata =
            parse(&json!({ "redirect_uris": [], "grant_types": [device, "refresh_token"] })).unwrap();
        assert!(metadata.may(device) && !metadata.may("authorization_code"));
    }

    #[test]
    fn wrong_metadata_is_refused_with_the_code_of_the_rfc() {
        let many: Vec<String> = (0..21).map(|n| format!("com.example:/{n}")).collect();
        for (change, code) in [
            (json!({ "client_uri": null }), "invalid_client_metadata"),
            (json!({ "client_uri": "http://example.com/" }), "invalid_client_metadata"),
            (json!({ "client_uri": "https://user:pass@example.com/" }), "invalid_client_metadata"),
            (json!({ "client_uri": "https://localhost/" }), "invalid_client_metadata"),
            (json!({ "client_uri": "https://93.184.215.14/" }), "invalid_client_metadata"),
            (json!({ "client_uri": "https://example.com;x/" }), "invalid_client_metadata"),
            (json!({ "client_uri": 1 }), "invalid_client_metadata"),
            (json!({ "client_name": "x".repeat(101) }), "invalid_client_metadata"),
            (json!({ "client_name": "a\u{202e}b" }), "invalid_client_metadata"),
            (json!({ "client_name": "a\nb" }), "invalid_client_metadata"),
            (json!({ "logo_uri": "https://user@example.com/logo.png" }), "invalid_client_metadata"),
            (json!({ "tos_uri": "http://example.com/" }), "invalid_client_metadata"),
            (json!({ "policy_uri": "javascript:alert(1)" }), "invalid_client_metadata"),
            (json!({ "application_type": "desktop" }), "invalid_client_metadata"),
            (json!({ "token_endpoint_auth_method": "client_secret_basic" }), "invalid_client_metadata"),
            (json!({ "grant_types": ["implicit"] }), "invalid_client_metadata"),
            (json!({ "grant_types": "authorization_code" }), "invalid_client_metadata"),
            (json!({ "response_types": ["token"] }), "invalid_client_metadata"),
            (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
            (json!({ "redirect_uris": many }), "invalid_redirect_uri"),
            (json!({ "redirect_uris": ["com.example:/", "https://evil.org/"] }), "invalid_redirect_uri"),
            (json!({ "application_type": "web" }), "invalid_redirect_uri"),
        ] {
            assert_eq!(parse(&change).unwrap_err().code(), code, "{change}");
        }
    }
}
