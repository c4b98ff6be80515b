//! `signing-key`: the key that signs for this server.

use std::path::Path;

use chappe_identity::moment;
use chappe_rules::build::SigningKey;
use chappe_world::World;
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, SigningKeyVerb, signing_key};

pub(super) async fn run(deps: &Deps, verb: SigningKeyVerb) -> Result<Answer, Error> {
    let (world, file) = (deps.world.clone(), deps.places.signing_key.clone());
    let is_running = deps.running.is_some();
    let work = move || match verb {
        SigningKeyVerb::Show => show(&file),
        SigningKeyVerb::Rotate => rotate(&file, &world, is_running),
    };
    deps.world.spawn_blocking(work).await.map_err(|_| Error::Invalid("the server is stopping".to_owned()))?
}

fn show(file: &Path) -> Result<Answer, Error> {
    let keys = signing_key::load(file)?.ok_or_else(|| Error::NotFound(file.display().to_string()))?;
    let mut lines = vec![format!("{} signs", written(&keys.current))];
    lines.extend(keys.next.iter().map(|next| format!("{} signs from the next start on", written(next))));
    let old = keys.old.iter();
    lines.extend(old.map(|(id, old)| format!("{id}={} signed until {}", old.key, moment(old.expired_ts))));
    let old = keys.old.iter();
    let old: Vec<Value> = old
        .map(|(id, old)| json!({ "key_id": id, "public_key": old.key, "expired_ts": old.expired_ts }))
        .collect();
    let data = json!({ "current": data(&keys.current), "next": keys.next.as_ref().map(data), "old": old });
    Ok(Answer { lines, data })
}

fn rotate(file: &Path, world: &World, is_running: bool) -> Result<Answer, Error> {
    let (key, said) = match signing_key::prepare_next(file, world)? {
        Some(next) => (
            next,
            "signs from the next start on: say so where keys are pinned, restart the server, make a backup",
        ),
        None if is_running => {
            let sentence = "is missing: put it back from a backup before the server stops";
            return Err(Error::Invalid(format!("{} {sentence}", file.display())));
        }
        None => (
            signing_key::create(file, world)?,
            "signs from the next start on; servers that have not seen the key before it take nothing that it has signed",
        ),
    };
    let data = json!({ "next": key.id(), "key_id": key.id(), "public_key": key.public_base64() });
    Ok(Answer { lines: vec![written(&key), said.to_owned()], data })
}

/// The public half, as it is written down elsewhere.
fn written(key: &SigningKey) -> String {
    format!("{}={}", key.id(), key.public_base64())
}

fn data(key: &SigningKey) -> Value {
    json!({ "key_id": key.id(), "public_key": key.public_base64() })
}
