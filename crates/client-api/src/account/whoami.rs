//! `GET /account/whoami`: whose token this is.

use chappe_web::Ruma;
use ruma::api::client::account::whoami::v3::Response;

use crate::requester::Requester;

pub(super) async fn handler(requester: Requester) -> Ruma<Response> {
    let mut response = Response::new(requester.user().to_owned(), requester.is_guest());
    response.device_id.clone_from(&requester.device_id);
    Ruma(response)
}
