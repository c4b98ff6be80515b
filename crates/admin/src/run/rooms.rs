//! `rooms`: rooms that this server knows.

use chappe_rooms::Evicted;
use chappe_store::{
    Reader,
    rooms::{RoomHead, RoomNid},
    state::StateKey,
};
use ruma::RoomId;
use serde_json::{Value, json};

use super::{Answer, Deps, Running};
use crate::{
    Error, Rooms,
    jobs::{DeleteRoom, PurgeHistory, Work},
};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

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
            if let Some(policy) = deps.running.as_ref().and_then(|running| running.rooms.retention()) {
                let lifetime = policy.lifetime(head.keeping.said);
                let kept = lifetime.map_or_else(|| "for ever".to_owned(), |ms| format!("for {}", span(ms)));
                lines.push(format!("kept     {kept}"));
            }
            lines.extend(servers.iter().map(|(server, members)| format!("server   {server} {members}")));
            let mut data = described(nid, &id, &head, name.as_deref());
            data["servers"] = servers.iter().map(|(server, _)| json!(server)).collect();
            Ok(Answer { lines, data })
        }
        Rooms::Block { room } => {
            deps.running()?.rooms.block(&room, &deps.operator()).await?;
            Ok(Answer::line(format!("{room} blocked"), json!({ "room_id": room, "blocked": true })))
        }
        Rooms::Unblock { room } => {
            deps.running()?.rooms.unblock(&room).await?;
            Ok(Answer::line(
                format!("{room} no longer blocked"),
                json!({ "room_id": room, "blocked": false }),
            ))
        }
        Rooms::Delete { room, block, keep, force } => {
            let running = deps.running()?;
            if !block && running.rooms.number(&room).await?.is_none() {
                return Err(Error::NotFound(room.to_string()));
            }
            let work = DeleteRoom {
                room,
                number: None,
                block,
                purge: !keep,
                force,
                replacement: None,
                outcome: Evicted::default(),
            };
            started(running, &Work::DeleteRoom(work)).await
        }
        Rooms::Expire { room } => {
            let gone = deps.running()?.rooms.expire_now(&room).await?;
            Ok(Answer::line(format!("{gone} events taken away"), json!({ "room_id": room, "events": gone })))
        }
        Rooms::PurgeHistory { room, older_than_days, with_local } => {
            let running = deps.running()?;
            let before = deps.world.now().saturating_sub(older_than_days.saturating_mul(DAY_MS));
            let up_to = running.rooms.place_at(&room, before).await?;
            let work = PurgeHistory { room, up_to, with_local, purged: 0 };
            started(running, &Work::PurgeHistory(work)).await
        }
    }
}

/// A length of time, in the largest unit that says it.
fn span(ms: u64) -> String {
    match ms / HOUR_MS {
        hours if ms.is_multiple_of(DAY_MS) => format!("{} days", hours / 24),
        hours if ms.is_multiple_of(HOUR_MS) => format!("{hours} hours"),
        _ => format!("{} s", ms / 1_000),
    }
}

async fn started(running: &Running, work: &Work) -> Result<Answer, Error> {
    let id = running.jobs.start(None, work).await?;
    Ok(Answer::line(format!("job {id} begins; `chappe admin jobs list` shows it"), json!({ "job": id })))
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
