//! Reports to the administrators.

mod report;

use chappe_web::Routes;
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<report_content::v3::Request, _>(report::event)
        .on::<report_room::v3::Request, _>(report::room)
        .on::<report_user::v3::Request, _>(report::user)
}
