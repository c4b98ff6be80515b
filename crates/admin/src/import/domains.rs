//! Where domains and addresses of the network belong.

use std::collections::BTreeMap;

use chappe_identity::{MapBook, MapEntry, MapTarget, Whom};
use ruma::OwnedServerName;

use super::{
    Line, Outcome, Report,
    table::{Row, rows},
};
use crate::Error;

const COLUMNS: [&str; 4] = ["domain", "homeserver", "shadow_homeserver", "requires_invite"];

/// Puts the lines of a file into the map, or only says what would become of them. What the map says of others stays.
pub(crate) async fn domains(map: &MapBook, text: &str, dry_run: bool) -> Result<Report, Error> {
    let rows = rows(text, &COLUMNS)?;
    let mut known: BTreeMap<Whom, MapTarget> = BTreeMap::new();
    for entry in map.list().await? {
        if let MapEntry::Entry(whom, target) = entry {
            known.insert(whom, target);
        }
    }
    let (mut lines, mut news) = (Vec::new(), Vec::new());
    for row in rows {
        let done = entry(&row).map(|(whom, target)| match known.insert(whom.clone(), target.clone()) {
            Some(before) if before == target => Outcome::Known,
            before => {
                news.push((whom, target));
                if before.is_some() { Outcome::Changed } else { Outcome::Made }
            }
        });
        lines.push(Line::new(row.line, row.value("domain").unwrap_or_default(), done));
    }
    if !dry_run && !news.is_empty() {
        map.put_all(&news).await?;
    }
    Ok(Report::new(dry_run, lines))
}

fn entry(row: &Row) -> Result<(Whom, MapTarget), String> {
    let whom = row.need("domain")?.parse::<Whom>().map_err(|error| error.to_string())?;
    let server =
        |name: &str| OwnedServerName::try_from(name).map_err(|_| format!("{name:?} is no server name"));
    let requires_invite = match row.value("requires_invite") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(format!("requires_invite is true or false, not {other:?}")),
    };
    let hs = server(row.need("homeserver")?)?;
    let shadow_hs = row.value("shadow_homeserver").map(server).transpose()?;
    Ok((whom, MapTarget { hs, shadow_hs, requires_invite }))
}
