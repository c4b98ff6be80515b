//! Running verbs: what each one does, whoever asks and however.

mod audit;
mod configuration;
mod destinations;
mod domains;
mod jobs;
mod media;
mod network;
mod notices;
mod reports;
mod rooms;
mod servers;
mod signing_key;
mod stats;
mod tokens;
mod users;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::IntoResponse,
    routing::post,
};
use chappe_accounts::Accounts;
use chappe_identity::{AllowList, MapBook, ServerList};
use chappe_store::Store;
use chappe_web::Error as WebError;
use chappe_world::World;
use http::StatusCode;
use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::configuration::{Changes, Reload};
pub(crate) use self::{media::quarantine_room, users::user_id};
use crate::{Error, Jobs, Note, Places, Statistics, Verb, backup};

/// Path of verbs on the admin socket.
pub const RUN_PATH: &str = "/verb";
/// The longest verb, in bytes. Files go inside verbs: the longest is a map of addresses of 16 MiB, in which JSON writes the end of
/// each line, and each quote, as two characters.
const LONGEST_VERB: usize = 64 << 20;

/// What verbs work on.
pub struct Deps {
    /// The world.
    pub world: World,
    /// The store.
    pub store: Store,
    /// Accounts.
    pub accounts: Accounts,
    /// Who may sign up.
    pub allow_list: AllowList,
    /// Which homeserver serves which address.
    pub map: MapBook,
    /// Which servers may take part.
    pub servers: ServerList,
    /// The list of the network, if one is followed.
    pub list: Option<chappe_federation::ListBook>,
    /// What else belongs to the server.
    pub places: Places,
    /// What there is only in a running server.
    pub running: Option<Running>,
}

/// Is told the list of allowed servers; `None` is every server.
pub type ServersChanged = Box<dyn Fn(Option<&[String]>) + Send + Sync>;

/// What there is only in a running server.
pub struct Running {
    /// Rooms, to leave them in somebody's name.
    pub rooms: chappe_rooms::Rooms,
    /// What is sent to other servers.
    pub federation: chappe_federation::Federation,
    /// Files.
    pub media: chappe_media::Media,
    /// Work in the background.
    pub jobs: Jobs,
    /// What is counted.
    pub statistics: Statistics,
    /// Is told the new list of servers; `None` is every server.
    pub servers_changed: ServersChanged,
    /// Reads the configuration again.
    pub configuration: Arc<dyn Reload>,
    /// When the server started, in milliseconds since 1970.
    pub started: u64,
}

/// Runs verbs: a handle, clones share it.
#[derive(Clone)]
pub struct Admin {
    deps: Arc<Deps>,
}

/// What a verb answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// For people: lines to print.
    pub lines: Vec<String>,
    /// For programs.
    pub data: Value,
}

impl Answer {
    /// One line, and the same for programs.
    pub(crate) fn line(line: impl Into<String>, data: Value) -> Self {
        Self { lines: vec![line.into()], data }
    }
}

impl Deps {
    /// What only a running server can do.
    pub(crate) fn running(&self) -> Result<&Running, Error> {
        let said = "this needs the running server: start it first";
        self.running.as_ref().ok_or_else(|| Error::Invalid(said.to_owned()))
    }

    /// The name under which lists show what was done at the machine.
    pub(crate) fn operator(&self) -> OwnedUserId {
        operator(self.accounts.server_name())
    }
}

/// The name under which lists show what was done at the machine: nobody can log in as this user.
pub(crate) fn operator(server: &ServerName) -> OwnedUserId {
    let id = UserId::parse(format!("@_operator:{server}"));
    id.unwrap_or_else(|_| ruma::owned_user_id!("@_operator:localhost"))
}

impl Admin {
    /// Verbs on these.
    pub fn new(deps: Deps) -> Self {
        Self { deps: Arc::new(deps) }
    }

    /// Does what is asked, and keeps the audit log of it.
    pub async fn run(&self, verb: Verb) -> Result<Answer, Error> {
        if verb.only_looks() {
            return self.perform(verb).await;
        }
        let what = typed(&verb)?;
        self.deps.accounts.audit().around(&self.deps.operator(), what, Box::pin(self.perform(verb))).await
    }

    async fn perform(&self, verb: Verb) -> Result<Answer, Error> {
        match verb {
            Verb::Domains(verb) => domains::run(&self.deps, verb).await,
            Verb::Users(verb) => users::run(&self.deps, verb).await,
            Verb::Rooms(verb) => rooms::run(&self.deps, verb).await,
            Verb::Servers(verb) => servers::run(&self.deps, verb).await,
            Verb::Network(verb) => network::run(&self.deps, verb).await,
            Verb::Destinations(verb) => destinations::run(&self.deps, verb).await,
            Verb::Tokens(verb) => tokens::run(&self.deps, verb).await,
            Verb::Media(verb) => media::run(&self.deps, verb).await,
            Verb::Reports(verb) => reports::run(&self.deps, verb).await,
            Verb::Notices(verb) => notices::run(&self.deps, verb).await,
            Verb::Jobs(verb) => jobs::run(&self.deps, verb).await,
            Verb::Audit(verb) => audit::run(&self.deps, verb).await,
            Verb::Config(verb) => configuration::run(&self.deps, verb).await,
            Verb::Stats(verb) => stats::run(&self.deps, verb).await,
            Verb::SigningKey(verb) => signing_key::run(&self.deps, verb).await,
            Verb::Backup { folder } => self.backup(folder).await,
            Verb::Status => self.status().await,
        }
    }

    async fn backup(&self, folder: PathBuf) -> Result<Answer, Error> {
        let deps = &self.deps;
        deps.store.copy_to(&backup::begin(&folder)?).await?;
        let note = Note {
            server_name: deps.accounts.server_name().to_owned(),
            format: chappe_store::FORMAT,
            made: deps.world.now(),
            files: 0,
            bytes: 0,
        };
        let (place, places) = (folder.clone(), deps.places.clone());
        let completing = deps.world.spawn_blocking(move || backup::complete(&place, &places, note));
        let note =
            completing.await.map_err(|_| Error::Invalid("the backup was interrupted".to_owned()))??;
        tracing::info!(folder = %folder.display(), files = note.files, "backup made");
        let line = format!("{} holds the database, the key and {} media files", folder.display(), note.files);
        Ok(Answer::line(line, json!({ "folder": folder, "note": note })))
    }

    async fn status(&self) -> Result<Answer, Error> {
        let deps = &self.deps;
        let position = deps.store.read().position().0;
        let rules = deps.allow_list.list().await?.len();
        let up = deps.running.as_ref().map(|running| deps.world.now().saturating_sub(running.started) / 1000);
        let state = up.map_or_else(|| "stopped".to_owned(), |seconds| format!("running for {seconds} s"));
        let version = env!("CARGO_PKG_VERSION");
        let server = deps.accounts.server_name();
        let open = deps.list.as_ref().map(|list| list.status().open);
        let mut lines = vec![
            format!("server      {server}, chappe {version}, {state}"),
            format!("commits     {position}"),
            format!("allow-list  {rules} rules"),
        ];
        lines.extend(open.map(|open| {
            let said = if open { "open" } else { "closed: its list is missing or has expired" };
            format!("network     {said}")
        }));
        let data = json!({
            "server_name": server, "version": version, "running_seconds": up,
            "position": position, "allow_rules": rules, "network_open": open,
        });
        Ok(Answer { lines, data })
    }
}

/// A verb as it is typed, and its arguments. Apart, since a verb is no secret because it is called `reset-password`.
fn typed(verb: &Verb) -> Result<(String, Value), Error> {
    let mut rest = serde_json::to_value(verb).map_err(|error| Error::Invalid(error.to_string()))?;
    let mut words = vec!["chappe admin".to_owned()];
    // Groups and verbs are objects with one field, and arguments are within; a verb that takes none is a text.
    while let Value::Object(fields) = &mut rest
        && fields.len() == 1
        && let Some((word, inner)) = fields.iter_mut().next()
        && (inner.is_object() || (inner.is_string() && words.len() == 1))
    {
        words.push(word.replace('_', "-"));
        rest = inner.take();
    }
    if let Value::String(word) = &rest {
        words.push(word.replace('_', "-"));
        rest = json!({});
    }
    Ok((words.join(" "), rest))
}

/// The routes of the admin socket. Whoever can connect may do everything.
pub fn socket_routes(admin: Admin) -> Router {
    let run = async |State(admin): State<Admin>, Json(verb): Json<Verb>| match admin.run(verb).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => WebError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error.to_string()).into_response(),
    };
    let limit = DefaultBodyLimit::max(LONGEST_VERB);
    Router::new().route(RUN_PATH, post(run)).layer(limit).with_state(admin)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::typed;
    use crate::Verb;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[test]
    fn a_verb_is_written_down_as_it_is_typed() {
        for (line, words, arguments) in [
            (
                "users reset-password alice",
                "users reset-password",
                json!({ "user": "alice", "password": null }),
            ),
            ("tokens revoke abc", "tokens revoke", json!({ "token": "abc" })),
            ("domains map remove a.fr", "domains map remove", json!({ "whom": "a.fr" })),
            ("backup /b", "backup", json!({ "folder": "/b" })),
            ("signing-key rotate", "signing-key rotate", json!({})),
            ("destinations retry b.fr", "destinations retry", json!({ "server": "b.fr", "all": false })),
            ("destinations retry --all", "destinations retry", json!({ "server": null, "all": true })),
        ] {
            let all = std::iter::once("admin").chain(line.split(' '));
            let verb = Line::try_parse_from(all).unwrap().verb;
            assert_eq!(typed(&verb).unwrap(), (format!("chappe admin {words}"), arguments));
        }
    }
}
