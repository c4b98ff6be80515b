//! `rooms`: rooms that this server knows.

use chappe_store::{
    Reader,
    rooms::{RoomHead, RoomNid},
    state::StateKey,
};
use ruma::RoomId;
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, Rooms};

pub(super) async fn run(deps: &Deps, verb: Rooms) -> Result<Answer, Error> {
    let reader = deps.store.read();
    match verb {
        Rooms::List { limit, after } => {
            let (mut lines, mut data) = (Vec::new(), Vec::new());
            for nid in reader.rooms_after(RoomNid(after.unwrap_or(0)), limit.clamp(1, 10_000)).await? {
                let (id, head) = (reader.room_id(nid).await?, reader.room_head(nid).await?);
                let name = name(&reader, nid).await?;
                let shown = name.as_deref().unwrap_or("-");
                lines.push(format!("{:>6} {id:60} {:>6} joined  {shown}", nid.0, head.joined));
                data.push(described(nid, &id, &head, name.as_deref()));
            }
            Ok(Answer { lines, data: data.into() })
        }
        Rooms::Show { room } => {
            let id =
                RoomId::parse(&room).map_err(|_| Error::Invalid(format!("{room:?} is not a room id")))?;
            let nid = reader.room_nid(&id).await?.ok_or_else(|| Error::NotFound(room.clone()))?;
            let head = reader.room_head(nid).await?;
            let name = name(&reader, nid).await?;
            let servers = reader.room_servers(nid).await?;
            let mut lines = vec![
                format!("room     {id}, version {}", head.version),
                format!("name     {}", name.as_deref().unwrap_or("-")),
                format!("members  {} joined, {} invited", head.joined, head.invited),
                format!("events   {}", head.next_event - 1),
            ];
            lines.extend(servers.iter().map(|(server, members)| format!("server   {server} {members}")));
            let mut data = described(nid, &id, &head, name.as_deref());
            data["servers"] = servers.iter().map(|(server, _)| json!(server)).collect();
            Ok(Answer { lines, data })
        }
    }
}

async fn name(reader: &Reader<'_>, nid: RoomNid) -> Result<Option<String>, Error> {
    let key = StateKey::new("m.room.name", "");
    let Some(num) = reader.state_now(nid, &[key]).await?.into_iter().next().flatten() else {
        return Ok(None);
    };
    let pdu = reader.pdu(nid, num).await?;
    let event: Value = serde_json::from_str(&pdu.json).map_err(|_| chappe_store::Error::Corrupt("event"))?;
    Ok(event["content"]["name"].as_str().map(str::to_owned))
}

fn described(nid: RoomNid, id: &RoomId, head: &RoomHead, name: Option<&str>) -> Value {
    json!({
        "number": nid.0, "room_id": id, "name": name, "version": head.version, "joined": head.joined,
        "invited": head.invited, "events": head.next_event - 1, "resident": head.resident,
    })
}
