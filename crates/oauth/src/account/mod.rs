//! `GET` and `POST …/account`: people manage their account (client-server API, "Account management").

mod act;
mod overview;
mod questions;

use axum::{
    extract::RawQuery,
    response::{IntoResponse, Response},
};
use ruma::UserId;

pub(super) use self::act::act;
use crate::{
    error::Error,
    fields::Fields,
    login::{self, Goal},
    page::Page,
    visitor::Visitor,
};

/// What the page can be opened for.
pub(crate) const ACTIONS: [&str; 6] = [
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.account_deactivate",
    "org.matrix.cross_signing_reset",
];

/// Where on the page an action leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Overview,
    Device,
    EndDevice,
    Deactivate,
    Reset,
}

/// An action, under the names that it had before it was specified as well (MSC4191).
fn place(action: &str) -> Place {
    match action.strip_prefix("org.matrix.").unwrap_or(action) {
        "device_view" | "session_view" => Place::Device,
        "device_delete" | "session_end" => Place::EndDevice,
        "account_deactivate" => Place::Deactivate,
        "cross_signing_reset" => Place::Reset,
        _ => Place::Overview,
    }
}

pub(super) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let page = match Fields::parse(query.unwrap_or_default().as_bytes()) {
        Ok(fields) => page(&visitor, &fields).await,
        Err(error) => Err(error),
    };
    page.unwrap_or_else(|error| visitor.problem(&error)).into_response()
}

async fn page(visitor: &Visitor, fields: &Fields) -> Result<Page, Error> {
    let Some(user) = &visitor.user else {
        return Ok(login::page(visitor, &Goal::new("account", fields), &login::hint(fields), None));
    };
    at(visitor, user, place(fields.get("action").unwrap_or_default()), fields, None).await
}

/// One place of the page; a device that is not there leads to the overview.
async fn at(
    visitor: &Visitor,
    user: &UserId,
    place: Place,
    fields: &Fields,
    notice: Option<&'static str>,
) -> Result<Page, Error> {
    let named = fields.get("device_id").map(<&ruma::DeviceId>::from);
    let device = match named {
        Some(id) => visitor.oauth.accounts().device(user, id).await?,
        None => None,
    };
    match (place, device) {
        (Place::Device, Some(device)) => Ok(overview::device(visitor, &device)),
        (Place::EndDevice, Some(device)) => questions::end_device(visitor, user, &device, notice).await,
        (Place::Deactivate, _) => questions::deactivate(visitor, user, notice).await,
        (Place::Reset, _) => questions::reset(visitor, user, notice).await,
        (Place::Overview | Place::Device | Place::EndDevice, _) => {
            overview::page(visitor, user, notice).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ACTIONS, Place, place};

    #[test]
    fn actions_lead_where_they_say() {
        let places = ACTIONS.map(place);
        let Place::Overview = places[0] else { panic!("{places:?}") };
        assert_eq!(
            places[1..],
            [Place::Overview, Place::Device, Place::EndDevice, Place::Deactivate, Place::Reset]
        );
        assert_eq!(
            (place("session_end"), place("org.matrix.session_view")),
            (Place::EndDevice, Place::Device)
        );
        assert_eq!((place(""), place("delete everything")), (Place::Overview, Place::Overview));
    }
}
