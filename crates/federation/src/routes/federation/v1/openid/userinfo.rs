//! `GET /_matrix/federation/v1/openid/userinfo`: whose an OpenID token is.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::openid::get_openid_userinfo::v1::{Request, Response};

use crate::{Federation, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Ruma(request): Ruma<Request>,
) -> Answer<Response> {
    let user = federation.accounts().openid_user(&request.access_token).await?;
    Ok(Ruma(Response::new(user)))
}
