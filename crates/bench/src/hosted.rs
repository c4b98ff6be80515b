//! A room that lives on a peer: its state signed in advance, ready to be joined.

use std::sync::{Arc, OnceLock};

use anyhow::Result;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::peer::{Answers, Peer, Seat, now};
use chappe_bench::{Authority, Client, Server, segment};

/// The room and the server it lives on.
pub(crate) struct Hosted {
    pub(crate) peer: Peer,
    /// Of whoever made the room.
    pub(crate) seat: Seat,
}

/// What the peer answers once the room is made.
struct Page {
    /// A template of a join, for nobody yet.
    offer: Value,
    state: Bytes,
}

impl Page {
    /// The template for the user whom the path of a request ends with.
    fn offer_for(&self, path: &str) -> Bytes {
        let user = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let user = percent_decode_str(user).decode_utf8_lossy();
        let mut offer = self.offer.clone();
        for field in ["sender", "state_key"] {
            offer["event"][field] = json!(user);
        }
        offer.to_string().into()
    }
}

impl Hosted {
    /// A public room with so many members.
    pub(crate) async fn new(authority: &Authority, members: usize) -> Result<Self> {
        let page: Arc<OnceLock<Page>> = Arc::default();
        let shown = Arc::clone(&page);
        let answers: Answers = Arc::new(move |path, _| match path {
            path if path.contains("/make_join/") => shown.get().map(|page| page.offer_for(path)),
            path if path.contains("/send_join/") => shown.get().map(|page| page.state.clone()),
            path if path.contains("/send/") => Some(Bytes::from_static(b"{\"pdus\":{}}")),
            _ => None,
        });
        let peer = Peer::start(authority, answers).await?;
        let (room, founder) = (format!("!big:{}", peer.name), format!("@far:{}", peer.name));
        let mut made = Made { peer: &peer, room: &room, founder: &founder, last: None, state: Vec::new() };
        let create = made.add("m.room.create", "", json!({ "room_version": "11" }), &[])?;
        let member = made.add("m.room.member", &founder, json!({ "membership": "join" }), &[&create])?;
        let levels = json!({ "users": { founder.as_str(): 100 } });
        let levels = made.add("m.room.power_levels", "", levels, &[&create, &member])?;
        let public = json!({ "join_rule": "public" });
        let rules = made.add("m.room.join_rules", "", public, &[&create, &member, &levels])?;
        for n in 1..members {
            let user = format!("@u{n}:{}", peer.name);
            let content = json!({ "membership": "join", "displayname": format!("User {n}") });
            made.add("m.room.member", &user, content, &[&create, &levels, &rules])?;
        }
        let Made { last, state, .. } = made;
        let (last, depth) = last.unwrap_or_default();
        let offer = json!({ "room_version": "11", "event": {
            "room_id": room, "type": "m.room.member", "content": { "membership": "join" }, "depth": depth + 1,
            "prev_events": [last], "auth_events": [create, levels, rules],
        } });
        let auth_chain = &state[..state.len().min(4)];
        let answer = json!({ "origin": peer.name, "state": state, "auth_chain": auth_chain });
        page.get_or_init(|| Page { offer, state: answer.to_string().into() });
        let seat = Seat::founded(&room, &founder, vec![create, levels, member], (last, depth));
        Ok(Self { peer, seat })
    }

    /// Has a user of a server join; the event id of the join.
    pub(crate) async fn joined_by(&self, server: &Server, name: &str) -> Result<(Client, String)> {
        let user = Client::new(server.client).register(name).await?;
        let path = format!(
            "/_matrix/client/v3/join/{}?server_name={}",
            segment(&self.seat.room),
            segment(&self.peer.name)
        );
        user.post(&path, json!({})).await?;
        let state = format!(
            "/_matrix/client/v3/rooms/{}/state/m.room.member/{}",
            segment(&self.seat.room),
            segment(&user.user)
        );
        let event = user.get(&format!("{state}?format=event")).await?;
        Ok((user, event["event_id"].as_str().unwrap_or_default().to_owned()))
    }
}

/// A room in the making.
struct Made<'a> {
    peer: &'a Peer,
    room: &'a str,
    founder: &'a str,
    /// The newest event and its depth.
    last: Option<(String, u64)>,
    state: Vec<Value>,
}

impl Made<'_> {
    /// Adds a state event, members as their own senders; its id.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    fn add(&mut self, kind: &str, key: &str, content: Value, auth: &[&String]) -> Result<String> {
        let sender = if kind == "m.room.member" { key } else { self.founder };
        let depth = self.last.as_ref().map_or(1, |(_, depth)| depth + 1);
        let prev: Vec<&String> = self.last.iter().map(|(id, _)| id).collect();
        let (id, event) = self.peer.sign(json!({
            "room_id": self.room, "sender": sender, "type": kind, "state_key": key, "content": content,
            "prev_events": prev, "auth_events": auth, "depth": depth, "origin_server_ts": now(),
        }))?;
        self.last = Some((id.clone(), depth));
        self.state.push(event);
        Ok(id)
    }
}
