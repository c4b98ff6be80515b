//! Events that are sent later (MSC4140): scheduling, looking at and acting on them.

mod act;
mod schedule;
mod show;

use chappe_web::{Auth, Routes};
use http::Method;

pub(crate) use self::schedule::Delay;
use crate::Api;

/// Where all of this is found while MSC4140 is not part of the specification.
const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";

pub(crate) fn routes() -> Routes<Api> {
    let all = format!("{UNSTABLE}/delayed_events");
    let one = format!("{all}/{{delay_id}}");
    let act = format!("{one}/{{action}}");
    let schedule = format!("{UNSTABLE}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}");
    Routes::new()
        .at(&Method::GET, &all, Auth::Token, show::all)
        .at(&Method::GET, &one, Auth::Token, show::one)
        .at(&Method::POST, &one, Auth::None, act::by_body)
        .at(&Method::POST, &act, Auth::None, act::by_path)
        .at(&Method::PUT, &schedule, Auth::Token, schedule::handler)
}
