//! `POST …/token`: tokens for a code, a refresh token or a device code (client-server API, "Grant types").

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_web::Origin;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use crate::{
    OAuth,
    clients::Registered,
    codes::{Given, Shown, grant},
    error::{Error, Result},
    fields::Fields,
    metadata::{AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN},
    scope::Scope,
};

pub(super) async fn handler(
    State(oauth): State<OAuth>,
    origin: Origin,
    headers: HeaderMap,
    fields: Result<Fields>,
) -> Result<Response> {
    oauth.count("oauth token", &origin.subject(), oauth.config().rates.token)?;
    let fields = fields?;
    let client = caller(&oauth, &headers, &fields).await?;
    let kind = fields.need("grant_type")?;
    let known = [AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE].contains(&kind);
    if !known {
        return Err(Error::UnsupportedGrantType);
    }
    if !client.metadata.may(kind) {
        return Err(Error::UnauthorizedClient);
    }
    let (issued, scope) = match kind {
        AUTHORIZATION_CODE => for_code(&oauth, &client, &fields).await?,
        REFRESH_TOKEN => for_refresh_token(&oauth, &client, &fields).await?,
        _ => for_device_code(&oauth, &client, &fields).await?,
    };
    let mut body = json!({
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "refresh_token": issued.refresh_token,
        "scope": scope,
    });
    if let Some(ms) = issued.expires_in_ms {
        body["expires_in"] = (ms / 1000).into();
    }
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The client that calls. All are public: they say who they are, and nothing proves it.
pub(crate) async fn caller(oauth: &OAuth, headers: &HeaderMap, fields: &Fields) -> Result<Registered> {
    const PUBLIC: &str = "clients are public here: client_id in the body, and no secret";
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Error::InvalidClientHeader(PUBLIC));
    }
    if ["client_secret", "client_assertion"].iter().any(|name| fields.get(name).is_some()) {
        return Err(Error::InvalidClient(PUBLIC));
    }
    oauth.client(fields.need("client_id")?).await
}

async fn for_code(oauth: &OAuth, client: &Registered, fields: &Fields) -> Result<Given> {
    let shown = Shown {
        code: fields.need("code")?,
        redirect_uri: fields.need("redirect_uri")?,
        verifier: fields.need("code_verifier")?,
    };
    oauth.redeem(client, shown).await
}

async fn for_refresh_token(oauth: &OAuth, client: &Registered, fields: &Fields) -> Result<Given> {
    let token = fields.need("refresh_token")?;
    let asked = fields.get("scope");
    if let Some(asked) = asked {
        let granted = oauth.accounts().scope_of(token).await?;
        if granted.is_some_and(|granted| !Scope::within(asked, &granted)) {
            return Err(Error::InvalidScope("more than the user granted"));
        }
    }
    let (issued, log_in) = oauth.accounts().refresh_for(&client.digest, token).await?;
    Ok((issued, log_in.scope))
}

async fn for_device_code(oauth: &OAuth, client: &Registered, fields: &Fields) -> Result<Given> {
    let code = fields.need("device_code")?;
    let (by, scope) = oauth.devices().poll(oauth.world().now(), &client.digest, code)?;
    let grant = grant(client, &by.user, (scope.device, scope.text), by.browser);
    oauth.log_in(client, &grant, &by.mark).await
}
