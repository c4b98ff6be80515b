//! The old ways of following what happens (deprecated by the specification, still called by bots and for previews).

mod one;
mod stream;

use chappe_web::{Auth, Routes};
use http::Method;
use ruma::RoomId;
use serde_json::{json, value::RawValue};

use crate::Api;

/// Versions under which these endpoints are known.
pub(crate) const VERSIONS: [&str; 2] = ["v3", "r0"];

pub(crate) fn routes() -> Routes<Api> {
    let mut routes = Routes::new();
    for version in VERSIONS {
        let all = format!("/_matrix/client/{version}/events");
        routes = routes.at(&Method::GET, &format!("{all}/{{event_id}}"), Auth::Token, one::handler).at(
            &Method::GET,
            &all,
            Auth::Token,
            stream::handler,
        );
    }
    routes
}

/// An event that names its room, from one that does not.
pub(crate) fn in_room(event: &RawValue, room: &RoomId) -> Box<RawValue> {
    let text = event.get();
    let rest = text.strip_prefix('{').unwrap_or_default().trim_start();
    let comma = if rest.starts_with('}') { "" } else { "," };
    let named = format!("{{\"room_id\":{}{comma}{rest}", json!(room));
    RawValue::from_string(named).unwrap_or_else(|_| event.to_owned())
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use serde_json::value::RawValue;

    use super::in_room;

    #[test]
    fn events_get_their_room() {
        for (event, named) in [
            (r#"{"type":"a"}"#, r#"{"room_id":"!r:x","type":"a"}"#),
            (r#"{ "type":"a"}"#, r#"{"room_id":"!r:x","type":"a"}"#),
            ("{}", r#"{"room_id":"!r:x"}"#),
        ] {
            let event = RawValue::from_string(event.to_owned()).unwrap();
            assert_eq!(in_room(&event, room_id!("!r:x")).get(), named);
        }
    }
}
