//! `POST /_chappe/admin/v1/users/import` and `…/domains/import`: people and domains from a file of comma-separated values.

use axum::{
    Json,
    extract::{FromRequest, Request, State},
};
use chappe_web::{Parameters, Routes};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{Api, Result, v1::Place as _},
    import,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .post("/_chappe/admin/v1/users/import", users)
        .post("/_chappe/admin/v1/domains/import", domains)
}

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    dry_run: bool,
}

/// A body that is text, within the limit of all bodies.
struct Text(String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = chappe_web::Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, chappe_web::Error> {
        let (parts, body) = request.into_parts();
        let bytes = chappe_web::body_bytes(&parts, body).await?;
        let text = String::from_utf8(bytes.to_vec());
        text.map(Self).map_err(|_| chappe_web::Error::invalid_param("The file is not UTF-8"))
    }
}

async fn users(
    State(api): State<Api>,
    Parameters(query): Parameters<Query>,
    Text(text): Text,
) -> Result<Json<Value>> {
    Ok(Json(json!(import::users(&api.accounts, &text, query.dry_run).await?)))
}

async fn domains(
    State(api): State<Api>,
    Parameters(query): Parameters<Query>,
    Text(text): Text,
) -> Result<Json<Value>> {
    Ok(Json(json!(import::domains(api.service.identity().map(), &text, query.dry_run).await?)))
}
