//! Who may call: server administrators, by the access token of one of their devices. Asked once, in front of every route.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Query, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chappe_accounts::Requester;
use chappe_rooms::{Actor, Standing};
use chappe_web::Routes;
use http::{HeaderMap, Method, header, request::Parts};
use ring::digest::{SHA256, digest};
use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{Api, Error, Result};

/// Variable parts of paths that are no secrets.
const SHOWN: [&str; 18] = [
    "address",
    "announcement_id",
    "delete_id",
    "destination",
    "device_id",
    "event_id",
    "external_id",
    "media_id",
    "medium",
    "provider",
    "purge_id",
    "redact_id",
    "report_id",
    "room_id",
    "room_id_or_alias",
    "server_name",
    "txn_id",
    "user_id",
];

/// The administrator behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Administrator(Requester);

impl Administrator {
    /// Who.
    pub(crate) fn user(&self) -> &UserId {
        &self.0.user_id
    }

    /// The administrator acting in a room as itself.
    pub(crate) fn actor(&self) -> Actor {
        let device = self.0.device_id.clone();
        Actor { device, standing: Standing::Administrator, ..Actor::user(&self.0.user_id) }
    }

    /// The administrator looking into a room that it need not be in.
    pub(crate) fn overseer(&self) -> Actor {
        Actor { standing: Standing::Overseer, ..self.actor() }
    }

    /// Refuses what administrators must not do to themselves.
    pub(crate) fn not_oneself(&self, user: &UserId) -> Result<()> {
        if self.user() == user {
            return Err(chappe_web::Error::forbidden("You cannot do this to yourself").into());
        }
        Ok(())
    }
}

/// Refuses whoever is no administrator: 401 without a good token, 403 without the right. Suspended ones may look. What
/// changes something, and what shows what users say, goes into the audit log.
pub(super) async fn admit(
    State((api, paths)): State<(Api, Paths)>,
    request: Request,
    next: Next,
) -> Response {
    admitted(&api, &paths, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn admitted(api: &Api, paths: &Paths, mut request: Request, next: Next) -> Result<Response> {
    let administrator = administrator(api, request.method(), request.headers()).await?;
    request.extensions_mut().insert(administrator.clone());
    if looks(request.method()) && !shows_what_users_say(&request) {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let bytes = chappe_web::body_bytes(&parts, body).await?;
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| fingerprint(&bytes));
    let details = json!({ "query": query(&parts), "body": body });
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let action = format!("{} {}", parts.method, paths.written(matched, parts.uri.path()));
    let audit = api.accounts.audit();
    let asked = audit.asked(administrator.user(), action, details).await?;
    let response = next.run(Request::from_parts(parts, bytes.into())).await;
    let error = (!response.status().is_success()).then(|| response.status().to_string());
    audit.answered(administrator.user(), asked, error).await;
    Ok(response)
}

/// The paths of all routes by what the router calls them: there, parameters have numbers for names.
#[derive(Clone)]
pub(crate) struct Paths(Arc<HashMap<String, String>>);

impl Paths {
    pub(super) fn of(routes: &Routes<Api>) -> Self {
        let paths = routes.table().iter().map(|route| (route.pattern(), route.path.clone()));
        Self(Arc::new(paths.collect()))
    }

    /// A path as it is written down: of a part that is not known to be shown there stands what the route calls it.
    fn written(&self, matched: &str, path: &str) -> String {
        let route = self.0.get(matched).map_or(matched, String::as_str);
        let part = |(pattern, said)| {
            let is_variable = str::starts_with(pattern, '{');
            if is_variable && !SHOWN.contains(&pattern.trim_matches(['{', '}'])) { pattern } else { said }
        };
        route.split('/').zip(path.split('/')).map(part).collect::<Vec<_>>().join("/")
    }
}

/// What stands in the log for a body that is no JSON, such as a file with hashes of passwords.
fn fingerprint(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    let hash = digest(&SHA256, bytes);
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    json!({ "bytes": bytes.len(), "sha256": hash.as_ref().iter().fold(String::new(), hex) })
}

fn query(parts: &Parts) -> Map<String, Value> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|query| query.0);
    pairs.unwrap_or_default().into_iter().map(|(name, value)| (name, value.into())).collect()
}

fn looks(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn shows_what_users_say(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let last = |word: &str| route.contains(&format!("/{word}"));
    ["messages", "context/", "fetch_event/", "state", "accountdata", "event_reports/"].into_iter().any(last)
}

async fn administrator(api: &Api, method: &Method, headers: &HeaderMap) -> Result<Administrator> {
    let requester = api.accounts.authenticate(token(headers)?).await?;
    requester.must_be_admin()?;
    if !looks(method) {
        requester.may_act()?;
    }
    Ok(Administrator(requester))
}

/// Tokens in the query string are not taken here: they end up in the logs of proxies.
fn token(headers: &HeaderMap) -> Result<&str, chappe_web::Error> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = text.and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
    token.ok_or_else(chappe_web::Error::missing_token)
}

impl<S: Send + Sync> FromRequestParts<S> for Administrator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let found = parts.extensions.get::<Self>().cloned();
        Ok(found.ok_or_else(chappe_web::Error::missing_token)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Paths, SHOWN};

    #[test]
    fn nothing_of_a_path_is_written_down_that_may_be_a_secret() {
        let routes = crate::api::routes();
        let paths = Paths::of(&routes);
        let named: BTreeSet<&str> = routes.table().iter().map(|route| &*route.path).collect();
        assert_eq!(paths.0.len(), named.len(), "no two paths that differ in names alone");
        let parts = named.iter().flat_map(|path| path.split('/'));
        let mut hidden: BTreeSet<&str> =
            parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        hidden.retain(|name| !SHOWN.contains(name));
        assert_eq!(hidden, BTreeSet::from(["token"]));
        for (matched, path, written) in [
            (
                "/_synapse/admin/v2/users/{p5}",
                "/_synapse/admin/v2/users/@a:x",
                "/_synapse/admin/v2/users/@a:x",
            ),
            (
                "/_synapse/admin/v1/registration_tokens/{p5}",
                "/_synapse/admin/v1/registration_tokens/s3cret",
                "/_synapse/admin/v1/registration_tokens/{token}",
            ),
            ("/_synapse/admin/v9/{p4}", "/_synapse/admin/v9/s3cret", "/_synapse/admin/v9/{p4}"),
        ] {
            assert_eq!(paths.written(matched, path), written);
        }
    }
}
