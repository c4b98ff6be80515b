//! The command line.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::Write,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use chappe_accounts::Accounts;
use chappe_admin::{Admin, Answer, Deps, ListFile, Network, Verb, signing_key};
use chappe_federation::{ListBook, ListDeps};
use chappe_identity::{AllowList, MapBook, ServerList};
use chappe_kv::Db;
use chappe_store::Store;
use chappe_world::World;
use clap::{Args, Parser, Subcommand};

use crate::{
    admin_socket,
    config::{self, Config, DEVELOPMENT, EXAMPLE},
    mail_sink, serve, whose,
};

/// Where the configuration is looked for when nothing is said.
const PLACES: [&str; 2] = ["chappe.toml", "/etc/chappe/chappe.toml"];

/// Chappe, a Matrix homeserver for public administrations
#[derive(Parser)]
#[command(name = "chappe", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Place {
    /// Configuration file [default: ./chappe.toml, then /etc/chappe/chappe.toml]
    #[arg(short, long, global = true, env = "CHAPPE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the ready development configuration; data goes to ./chappe-dev
    #[arg(long, global = true, conflicts_with = "config")]
    dev: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve,
    /// Check or show configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a signing key (the server makes one by itself at its first start)
    GenerateKey {
        /// The file to write
        file: PathBuf,
    },
    /// Administer the server, running or stopped
    Admin {
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        verb: AdminVerb,
    },
    /// Put a backup into the data folder, which must have no database; the server must be stopped
    Restore {
        /// What `chappe admin backup` made
        folder: PathBuf,
    },
    /// Say whether the running server is well: exit code 0 or 1
    Health,
    /// Tools for development
    #[command(subcommand)]
    Dev(DevCommand),
}

#[derive(Subcommand)]
enum AdminVerb {
    /// The signed list of the network's servers: made and signed as a file, followed by servers
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Do what standard input says in JSON: root has the owner of the data folder do it
    #[command(hide = true)]
    Given,
    #[command(flatten)]
    Other(Verb),
}

#[derive(Subcommand)]
enum NetworkVerb {
    #[command(flatten)]
    File(ListFile),
    #[command(flatten)]
    Server(Network),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration and the files it names; a mistake is named with its key and line
    Check,
    /// Print the commented example
    Example,
    /// Print the development configuration
    Dev,
}

#[derive(Subcommand)]
enum DevCommand {
    /// Print every route, method and path
    Routes,
    /// Receive mails and print them, for tests
    MailSink {
        /// Port on 127.0.0.1
        #[arg(long, default_value_t = 1025)]
        port: u16,
    },
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> Result<()> {
        let place = self.place;
        match self.command {
            Command::Serve => {
                let config = place.load()?;
                if place.dev {
                    say(&welcome(&config))?;
                }
                serve::serve(&config).await
            }
            Command::Config(ConfigCommand::Check) => {
                let config = place.load()?;
                serve::rehearse(&config)?;
                say(&format!("the configuration of {} is right", config.server_name))
            }
            Command::Config(ConfigCommand::Example) => say(EXAMPLE),
            Command::Config(ConfigCommand::Dev) => say(DEVELOPMENT),
            Command::GenerateKey { file } => Ok(signing_key::create(&file, &bare_world()?).map(drop)?),
            Command::Admin { json, verb: AdminVerb::Network(NetworkVerb::File(verb)) } => {
                answer(&verb.run(&bare_world()?)?, json)
            }
            Command::Admin { json, verb: AdminVerb::Network(NetworkVerb::Server(verb)) } => {
                administer(&place, Verb::Network(verb), json).await
            }
            Command::Admin { json, verb: AdminVerb::Given } => {
                let verb = serde_json::from_reader(std::io::stdin().lock()).context("standard input")?;
                administer(&place, verb, json).await
            }
            Command::Admin { json, verb: AdminVerb::Other(verb) } => administer(&place, verb, json).await,
            Command::Restore { folder } => {
                let config = place.load()?;
                become_owner(&config)?;
                let restored = serve::restore(&config, &folder).await?;
                for sentence in restored.sentences() {
                    say(&sentence)?;
                }
                let note = restored.note;
                let minutes = bare_world()?.now().saturating_sub(note.made) / 60_000;
                say(&format!("{} is as it was {minutes} minutes ago: start it", note.server_name))
            }
            Command::Health => {
                let config = place.load()?;
                match admin_socket::ask(&config.admin_socket(), &Verb::Status).await? {
                    Some(_) => say("ok"),
                    None => bail!("not running"),
                }
            }
            Command::Dev(DevCommand::Routes) => say(&routes()),
            Command::Dev(DevCommand::MailSink { port }) => mail_sink::run(port).await,
        }
    }
}

impl Place {
    fn load(&self) -> Result<Config> {
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        if self.dev {
            return Ok(config::parse("development configuration", DEVELOPMENT, env)?);
        }
        let found = || PLACES.iter().map(PathBuf::from).find(|file| file.exists());
        let file = self.config.clone().or_else(found);
        config::load(file.as_deref(), env).with_context(|| match &file {
            Some(_) => "the configuration cannot be used".to_owned(),
            None => format!("no configuration: say --config FILE, or write {}", PLACES.join(" or ")),
        })
    }

    /// The same again for another process.
    fn arguments(&self) -> Vec<OsString> {
        let config = self.config.iter().flat_map(|file| [OsString::from("--config"), file.into()]);
        config.chain(self.dev.then(|| OsString::from("--dev"))).collect()
    }
}

fn answer(answer: &Answer, json: bool) -> Result<()> {
    if json {
        return say(&serde_json::to_string_pretty(&answer.data)?);
    }
    say(&answer.lines.join("\n"))
}

/// A line for each route of the tables that listeners are made of.
fn routes() -> String {
    let (client, federation) = (chappe_client_api::routes(), chappe_federation::routes());
    let media = chappe_client_api::media_routes();
    let given = chappe_federation::media_routes();
    let (identity, internal) = (chappe_identity_api::routes(), chappe_identity_api::internal_routes());
    let oauth = chappe_oauth::routes();
    let clients = client.table().iter().chain(media.table()).chain(oauth.table());
    let admin = chappe_admin::routes();
    let servers = federation.table().iter().chain(given.table()).chain(admin.table());
    let network = chappe_identity_api::federation_routes();
    let identity = identity.table().iter().chain(internal.table()).chain(network.table());
    let all: BTreeSet<_> = clients.chain(servers).chain(identity).collect();
    let lines: Vec<String> = all.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    lines.join("\n")
}

/// Through the running server if there is one, else on the database itself, as the owner of the data folder.
async fn administer(place: &Place, verb: Verb, json: bool) -> Result<()> {
    let config = place.load()?;
    if let Some(said) = admin_socket::ask(&config.admin_socket(), &verb).await? {
        if let Verb::Backup { folder } = &verb {
            // The server of a systemd unit has a /tmp of its own, which ends with it.
            ensure!(
                folder.exists(),
                "the backup is where only the server sees it: choose another folder than {}",
                folder.display()
            );
        }
        return answer(&said, json);
    }
    if let Some(owner) = other_owner(&config) {
        return hand_over(place, &verb, json, owner);
    }
    answer(&beside(&config, verb).await?, json)
}

/// On the database of a server that is stopped.
async fn beside(config: &Config, verb: Verb) -> Result<Answer> {
    if !Path::new(&config.database_dir()).exists() {
        bail!("no database in {}: start the server once", config.data_dir.display());
    }
    let world = bare_world()?;
    let db = Db::new(serve::open_engine(config)?);
    let server = config.server_name.clone();
    // What is written would make it the database of a server that has lost its key.
    if whose::check(&db, &server).await? {
        bail!("no server has used the database in {}: start the server once", config.data_dir.display());
    }
    let store = Store::open(db).await.context("opening the store")?;
    let map = MapBook::open(store.clone()).await?;
    let list = match config.federation.network.clone() {
        Some(network) => {
            let (world, store, map) = (world.clone(), store.clone(), map.clone());
            let deps = ListDeps { world, store, server: server.clone(), config: network, network: None, map };
            Some(ListBook::open(deps).await?)
        }
        None => None,
    };
    let deps = Deps {
        accounts: Accounts::new(store.clone(), world.clone(), server, config.accounts.clone()),
        allow_list: AllowList::open(store.clone(), world.clone()).await?,
        map,
        list,
        servers: ServerList::new(store.clone(), world.clone(), config.federation.allow.clone()),
        store,
        world,
        places: config.places(),
        running: None,
    };
    Ok(Admin::new(deps).run(verb).await?)
}

/// The user and group that own the data folder, if this is root and they are not: files of root's in there would keep the
/// server from starting.
fn other_owner(config: &Config) -> Option<(u32, u32)> {
    let ids = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).ok();
    let (own, _) = ids(Path::new("/proc/self"))?;
    ids(&config.data_dir).filter(|(owner, _)| own == 0 && *owner != 0)
}

/// This program as somebody else.
fn again_as((owner, group): (u32, u32)) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe().context("own program")?);
    command.uid(owner).gid(group);
    Ok(command)
}

/// Goes on as the owner of the data folder.
fn become_owner(config: &Config) -> Result<()> {
    let Some(owner) = other_owner(config) else { return Ok(()) };
    let error = again_as(owner)?.args(std::env::args_os().skip(1)).exec();
    Err(error).context("going on as the owner of the data folder")
}

/// Has the owner of the data folder do it. What was read for it goes along: standard input is read by now, and files may be
/// readable for root alone.
fn hand_over(place: &Place, verb: &Verb, json: bool, owner: (u32, u32)) -> Result<()> {
    let given = serde_json::to_vec(verb).context("verb")?;
    let mut command = again_as(owner)?;
    command.args(place.arguments()).args(["admin", "given"]).args(json.then_some("--json"));
    let doing = || "going on as the owner of the data folder";
    let mut child = command.stdin(Stdio::piped()).spawn().with_context(doing)?;
    // Dropped when all is written, so that the other one sees the end.
    let written = child.stdin.take().map_or(Ok(()), |mut to| to.write_all(&given));
    let status = child.wait().with_context(doing)?;
    if !status.success() {
        // It has said why.
        std::process::exit(status.code().unwrap_or(1));
    }
    written.with_context(doing)
}

/// Time and randomness, for commands that connect to nothing.
fn bare_world() -> Result<World> {
    World::real(&chappe_world::Outbound::default()).context("outbound connections")
}

fn welcome(config: &Config) -> String {
    let base = &config.public_baseurl;
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("chappe"));
    let (own, data) = (own.display(), &config.data_dir);
    let data = std::path::absolute(data).unwrap_or_else(|_| data.clone());
    format!(
        "Chappe is starting with its development configuration. Anybody may register, nothing leaves this machine.\n\n\
         Sign up   in a Matrix client (https://app.element.io, Element Desktop, nheko…): choose another homeserver,\n\
         \x20         {base}, then create an account; once more in a second window to talk with yourself\n\
         Look      curl {base}/_matrix/client/versions\n\
         \x20         {own} --dev admin status\n\
         Manage    {own} --dev admin users create alice --admin\n\
         \x20         {own} --dev admin domains add example.gouv.fr\n\
         \x20         (whom registration by e-mail lets in; deploy/lab/run shows it with mails, at two ministries)\n\
         Data      {}; remove it to begin anew\n\
         Next      {own} config example > chappe.toml, then {own} serve\n\n\
         Stop with Ctrl-C.\n",
        data.display()
    )
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')) {
        // Whoever reads has heard enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}
