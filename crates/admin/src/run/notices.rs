//! `notices`: what the server itself says to its users.

use chappe_rooms::Notice;
use serde_json::{Map, Value, json};

use super::{Answer, Deps, users::existing};
use crate::{
    Error, Notices,
    jobs::{Announce, Work},
};

pub(super) async fn run(deps: &Deps, verb: Notices) -> Result<Answer, Error> {
    let running = deps.running()?;
    match verb {
        Notices::Send { user, text } => {
            let user = existing(deps, &user).await?;
            let notice =
                Notice { kind: "m.room.message".into(), state_key: None, content: message(text, None) };
            let event = running.rooms.notify(&user, notice, None).await?;
            Ok(Answer::line(format!("said to {user}"), json!({ "user_id": user, "event_id": event })))
        }
        Notices::Announce { to, html, text } => {
            let work = Announce::new(&running.rooms, to, message(text, html))?;
            let id = running.jobs.start(None, &Work::Announce(work)).await?;
            Ok(Answer::line(format!("goes on in the background as job {id}"), json!({ "id": id })))
        }
    }
}

fn message(text: String, html: Option<String>) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("msgtype".to_owned(), "m.text".into());
    content.insert("body".to_owned(), text.into());
    if let Some(html) = html {
        content.insert("format".to_owned(), "org.matrix.custom.html".into());
        content.insert("formatted_body".to_owned(), html.into());
    }
    content
}
