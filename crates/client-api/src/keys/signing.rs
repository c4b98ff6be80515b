//! `POST /keys/device_signing/upload`: the user's cross-signing keys. Replacing them asks for the password,
//! or for an approval on the account page where an OAuth client asks.

use std::sync::Arc;

use axum::extract::State;
use chappe_accounts::{Accounts, CrossSigningUpload, Replace};
use chappe_web::Ruma;
use ruma::api::client::keys::upload_signing_keys::v3::{Request, Response};

use crate::{
    Config,
    error::Result,
    requester::Requester,
    uia::{Confirmed, Uia},
};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(uia): State<Uia>,
    State(config): State<Arc<Config>>,
    requester: Requester,
    Confirmed(request, body): Confirmed<Request>,
) -> Result<Ruma<Response>> {
    let upload = CrossSigningUpload {
        master: request.master_key,
        self_signing: request.self_signing_key,
        user_signing: request.user_signing_key,
    };
    let replace = if accounts.cross_signing_needs_auth(requester.user(), &upload).await? {
        let path = ("POST", "/keys/device_signing/upload");
        let auth = request.auth.as_ref();
        match config.account_page.as_deref().filter(|_| requester.oauth) {
            Some(page) => {
                let url = format!("{page}?action=org.matrix.cross_signing_reset");
                uia.ask_approval(&requester, (path, &url), &body, auth).await?;
            }
            None => uia.ask_person(&requester, path, &body, auth).await?,
        }
        Replace::Allowed
    } else {
        Replace::Refused
    };
    accounts.upload_cross_signing(requester.user(), upload, replace).await?;
    Ok(Ruma(Response::new()))
}
