//! `POST /appservice/{appserviceId}/ping`: whether the server reaches an application service, and how fast.

use axum::extract::State;
use chappe_appservices::{CallError, Services};
use chappe_web::Ruma;
use http::StatusCode;
use ruma::api::client::appservice::request_ping::v1::{Request, Response};

use crate::{error::Result, requester::Requester};

/// Characters of an answer that are passed on, for people who look for a mistake.
const SHOWN: usize = 1_000;

pub(super) async fn handler(
    State(services): State<Services>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let own = requester.appservice().filter(|service| service.id == request.appservice_id);
    let Some(service) = own else {
        return Err(chappe_web::Error::forbidden("This is for the application service alone").into());
    };
    let transaction = request.transaction_id.as_ref().map(|id| id.as_str());
    match services.link().ping(service, transaction).await {
        Ok(took) => Ok(Ruma(Response::new(took))),
        Err(error) => Err(refusal(&error).into()),
    }
}

fn refusal(error: &CallError) -> chappe_web::Error {
    let with = |status, errcode| chappe_web::Error::new(status, errcode, error.to_string());
    match error {
        CallError::NoUrl => with(StatusCode::BAD_REQUEST, "M_URL_NOT_SET"),
        CallError::Timeout => with(StatusCode::GATEWAY_TIMEOUT, "M_CONNECTION_TIMEOUT"),
        CallError::Unreachable(_) => with(StatusCode::BAD_GATEWAY, "M_CONNECTION_FAILED"),
        CallError::Status { status, body } => {
            let body: String = String::from_utf8_lossy(body).chars().take(SHOWN).collect();
            with(StatusCode::BAD_GATEWAY, "M_BAD_STATUS").with("status", status.as_u16()).with("body", body)
        }
    }
}
