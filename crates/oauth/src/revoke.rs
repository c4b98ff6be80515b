//! `POST …/revoke`: a client logs out (client-server API, "Token revocation"; RFC 7009).

use axum::extract::State;
use chappe_web::Origin;
use http::StatusCode;

use crate::{OAuth, error::Result, fields::Fields};

/// Whoever shows a token may end its session, whatever client they say they are: so do those who find leaked ones.
pub(super) async fn handler(
    State(oauth): State<OAuth>,
    origin: Origin,
    fields: Result<Fields>,
) -> Result<StatusCode> {
    oauth.count("oauth token", &origin.subject(), oauth.config().rates.token)?;
    oauth.accounts().revoke(fields?.need("token")?).await?;
    Ok(StatusCode::OK)
}
