//! `GET /_matrix/federation/v1/query/profile`: the profile of a local user.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::query::get_profile_information::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { request, .. }: Origin<Request>,
) -> Answer<Response> {
    federation.local(&request.user_id)?;
    let reader = federation.network().store().read();
    let profile = federation.accounts().profile(&reader, &request.user_id).await?;
    let wanted = |field: &str| request.field.as_ref().is_none_or(|wanted| wanted.as_str() == field);
    Ok(Ruma(profile.fields.into_iter().filter(|(field, _)| wanted(field)).collect::<Response>()))
}
