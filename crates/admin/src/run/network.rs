//! `network`: the signed list of the network's servers, as this server follows it.

use std::collections::BTreeMap;

use chappe_federation::{Applied, ListBook, ListError, NetworkList};
use serde_json::json;

use super::{Answer, Deps};
use crate::{Error, Network};

pub(super) async fn run(deps: &Deps, verb: Network) -> Result<Answer, Error> {
    let book = deps.list.as_ref();
    let book =
        book.ok_or_else(|| Error::Invalid("no network is followed: write [federation.network]".to_owned()))?;
    match verb {
        Network::Show => Ok(show(book, deps.world.now())),
        Network::Diff { text } => {
            let theirs =
                NetworkList::read(text.as_bytes()).map_err(|error| Error::Invalid(error.to_string()))?;
            let ours = book.status().held.map(|held| held.list.lines()).unwrap_or_default();
            let lines = differences(&ours, &theirs.lines());
            Ok(Answer { data: json!(lines), lines })
        }
        Network::Apply { text } => told(book, book.apply(text.as_bytes()).await),
        Network::Fetch => {
            deps.running()?;
            told(book, book.fetch().await)
        }
    }
}

fn told(book: &ListBook, applied: Result<Applied, ListError>) -> Result<Answer, Error> {
    let applied = applied.map_err(|error| match error {
        ListError::Store(error) => Error::Store(error),
        other => Error::Invalid(format!("not applied: {other}")),
    })?;
    let said = match applied {
        Applied::New => "another list is followed now",
        Applied::Known => "this list is followed already",
    };
    let sequence = book.status().held.map(|held| held.list.sequence);
    let number = sequence.map_or_else(String::new, |sequence| format!(" (number {sequence})"));
    Ok(Answer::line(
        format!("{said}{number}"),
        json!({ "sequence": sequence, "new": applied == Applied::New }),
    ))
}

fn show(book: &ListBook, now: u64) -> Answer {
    let (status, config) = (book.status(), book.config());
    let hours = |from: u64, to: u64| to.saturating_sub(from) / 3_600_000;
    let mut lines = vec![format!("network   {}", config.name)];
    lines.push(match &status.held {
        None => "closed    no list was ever applied: no other server is talked with".to_owned(),
        Some(held) if status.open => {
            format!("open      list {}, good for {} h", held.list.sequence, hours(now, held.list.expires_at))
        }
        Some(held) => {
            let since = hours(held.list.expires_at, now);
            format!(
                "closed    list {} has expired {since} h ago: no other server is talked with",
                held.list.sequence
            )
        }
    });
    if let Some((at, outcome)) = &status.asked {
        let said = outcome.as_ref().map_or_else(String::as_str, |()| "well");
        lines.push(format!("asked     {} min ago: {said}", now.saturating_sub(*at) / 60_000));
    }
    let list = status.held.as_ref().map(|held| &held.list);
    lines.extend(
        list.map(NetworkList::lines).unwrap_or_default().iter().map(|(what, said)| line(' ', what, said)),
    );
    let asked = status.asked.as_ref();
    let data = json!({
        "network": config.name, "open": status.open, "list": list,
        "asked_at": asked.map(|(at, _)| at), "asked_error": asked.and_then(|(_, outcome)| outcome.as_ref().err()),
    });
    Answer { lines, data }
}

/// What differs, line by line: `-` before what is followed now, `+` before what the other list says.
fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, said) in ours.iter().filter(|(what, said)| theirs.get(*what) != Some(said)) {
        lines.push(line('-', what, said));
    }
    for (what, said) in theirs.iter().filter(|(what, said)| ours.get(*what) != Some(said)) {
        lines.push(line('+', what, said));
    }
    lines
}

fn line(mark: char, what: &str, said: &str) -> String {
    format!("{mark} {what:48} {said}")
}
