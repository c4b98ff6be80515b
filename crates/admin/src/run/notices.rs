//! `notices`: what the server itself says to its users.

use chappe_rooms::Notice;
use serde_json::{Map, json};

use super::{Answer, Deps, users::existing};
use crate::{Error, Notices};

pub(super) async fn run(deps: &Deps, verb: Notices) -> Result<Answer, Error> {
    let rooms = &deps.running()?.rooms;
    match verb {
        Notices::Send { user, text } => {
            let user = existing(deps, &user).await?;
            let content =
                Map::from_iter([("msgtype".to_owned(), json!("m.text")), ("body".to_owned(), json!(text))]);
            let notice = Notice { kind: "m.room.message".into(), state_key: None, content };
            let event = rooms.notify(&user, notice, None).await?;
            Ok(Answer::line(format!("said to {user}"), json!({ "user_id": user, "event_id": event })))
        }
    }
}
