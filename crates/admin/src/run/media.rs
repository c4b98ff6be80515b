//! `media`: files that users have uploaded, and copies of other servers'.

use chappe_media::{Media as Files, MediumInfo};
use chappe_rooms::Rooms;
use ruma::{MxcUri, RoomId, ServerName, UserId};
use serde_json::json;

use super::{Answer, Deps};
use crate::{Error, Media};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) async fn run(deps: &Deps, verb: Media) -> Result<Answer, Error> {
    let running = deps.running()?;
    let files = &running.media;
    match verb {
        Media::Show { address } => {
            let (server, id) = parts(&address)?;
            let found = files.info(server, id).await?.ok_or_else(|| Error::NotFound(address.to_string()))?;
            Ok(shown(&found))
        }
        Media::Quarantine { address } => {
            let (server, id) = parts(&address)?;
            let done = files.quarantine(server, id, &deps.operator()).await?;
            let said = if done { "is under quarantine" } else { "is protected from quarantine" };
            Ok(Answer::line(format!("{address} {said}"), json!({ "address": address, "quarantined": done })))
        }
        Media::Unquarantine { address } => {
            let (server, id) = parts(&address)?;
            files.unquarantine(server, id).await?;
            let data = json!({ "address": address, "quarantined": false });
            Ok(Answer::line(format!("{address} is no longer under quarantine"), data))
        }
        Media::QuarantineRoom { room } => {
            let count = quarantine_room(&running.rooms, files, &room, &deps.operator()).await?;
            Ok(Answer::line(format!("{count} files under quarantine"), json!({ "quarantined": count })))
        }
        Media::Delete { address } => {
            let (server, id) = parts(&address)?;
            files.delete(server, id).await?;
            Ok(Answer::line(format!("{address} deleted"), json!({ "address": address })))
        }
        Media::PurgeRemote { unused_days } => {
            let before = deps.world.now().saturating_sub(unused_days.saturating_mul(DAY_MS));
            let count = files.purge_remote(before).await?;
            Ok(Answer::line(format!("{count} copies deleted"), json!({ "deleted": count })))
        }
    }
}

/// Puts all that a room's events name under quarantine; gives how many there were that are not protected.
pub(crate) async fn quarantine_room(
    rooms: &Rooms,
    files: &Files,
    room: &RoomId,
    by: &UserId,
) -> Result<usize, Error> {
    let mut count = 0;
    for address in rooms.media_in(room).await? {
        let (server, id) = parts(&address)?;
        match files.quarantine(server, id, by).await {
            Ok(done) => count += usize::from(done),
            Err(chappe_media::Error::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

fn parts(address: &MxcUri) -> Result<(&ServerName, &str), Error> {
    address.parts().map_err(|_| Error::Invalid(format!("{address} is not an mxc:// address")))
}

fn shown(info: &MediumInfo) -> Answer {
    let medium = &info.medium;
    let none = || "-".to_owned();
    let user = medium.uploader.as_ref().map_or_else(none, ToString::to_string);
    let mut lines = vec![
        format!("file      mxc://{}/{}", info.server, info.id),
        format!("bytes     {}", medium.size),
        format!("type      {}", medium.content_type.as_deref().unwrap_or("-")),
        format!("uploader  {user}"),
    ];
    if let Some(by) = &medium.quarantined_by {
        lines.push(format!("given to nobody, says {by}"));
    }
    if medium.protected {
        lines.push("protected from quarantine".to_owned());
    }
    let data = json!({
        "server": info.server, "id": info.id, "bytes": medium.size, "content_type": medium.content_type,
        "uploader": medium.uploader, "created": medium.created, "last_access": info.last_access,
        "quarantined_by": medium.quarantined_by, "protected": medium.protected,
    });
    Answer { lines, data }
}
