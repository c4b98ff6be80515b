//! `GET /_chappe/admin/v1/statistics`: how much happened, by day, domain and kind.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chappe_web::{Parameters, Routes};
use http::header;
use serde::Deserialize;

use crate::{
    api::{Api, Result, v1::Place as _},
    statistics::Period,
};

pub(super) fn routes() -> Routes<Api> {
    Routes::new().get("/_chappe/admin/v1/statistics", show)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Csv,
}

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    format: Format,
}

async fn show(
    State(api): State<Api>,
    Parameters(period): Parameters<Period>,
    Parameters(query): Parameters<Query>,
) -> Result<Response> {
    let report = api.statistics.report(&period).await?;
    Ok(match query.format {
        Format::Json => Json(report).into_response(),
        Format::Csv => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], report.csv()).into_response(),
    })
}
