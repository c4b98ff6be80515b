//! What an operator can ask for: one enum, parsed from the command line and sent as JSON to the running server.

mod domains;
mod users;

use std::{io::Read, path::PathBuf};

use clap::Subcommand;
use ruma::{OwnedMxcUri, OwnedRoomId};
use serde::{Deserialize, Serialize};

pub(crate) use self::domains::Target;
pub use self::{
    domains::{Domains, MapVerb},
    users::Users,
};
use crate::Grouping;

/// A verb of `chappe admin`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Who may sign up with an e-mail address
    #[command(subcommand)]
    Domains(Domains),
    /// Accounts of this server
    #[command(subcommand)]
    Users(Users),
    /// Rooms that this server knows
    #[command(subcommand)]
    Rooms(Rooms),
    /// Servers that may take part, when federation is closed
    #[command(subcommand)]
    Servers(Servers),
    /// The signed list of the network's servers
    #[command(skip)]
    Network(Network),
    /// Servers that something waits for or that were not reached
    #[command(subcommand)]
    Destinations(Destinations),
    /// Tokens for registration
    #[command(subcommand)]
    Tokens(Tokens),
    /// Files that users have uploaded, and copies of other servers'
    #[command(subcommand)]
    Media(Media),
    /// What users have reported
    #[command(subcommand)]
    Reports(Reports),
    /// What the server itself says to its users
    #[command(subcommand)]
    Notices(Notices),
    /// Work that goes on in the background
    #[command(subcommand)]
    Jobs(Jobs),
    /// What administrators did, and what came of it
    #[command(subcommand)]
    Audit(Audit),
    /// The configuration of the running server
    #[command(subcommand)]
    Config(Configuration),
    /// How much happened, by day, domain and kind; nothing about small groups
    Stats(Stats),
    /// The key that signs for this server
    #[command(subcommand)]
    SigningKey(SigningKey),
    /// Copy database, media and signing key into a new folder, without a pause; `chappe restore` puts them back
    Backup {
        /// The folder to make; the server's user must be allowed to
        #[arg(value_parser = absolute)]
        folder: PathBuf,
    },
    /// Whether the server runs, and some numbers
    Status,
}

/// `chappe admin rooms`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rooms {
    /// Show rooms
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on after this number of a room, as shown
        #[arg(long)]
        after: Option<u32>,
    },
    /// Show one room
    Show {
        /// Room id
        room: String,
    },
    /// Keep this server's users out of a room, known or not
    Block {
        /// Room id
        room: OwnedRoomId,
    },
    /// Undo that
    Unblock {
        /// Room id
        room: OwnedRoomId,
    },
    /// Take this server's users out of a room and remove every trace of it, in the background
    Delete {
        /// Room id
        room: OwnedRoomId,
        /// Keep this server's users out from now on
        #[arg(long)]
        block: bool,
        /// Leave the room and keep what was said
        #[arg(long)]
        keep: bool,
        /// Remove it even if somebody could not be taken out
        #[arg(long)]
        force: bool,
    },
    /// Take off the disk now what has expired in a room, which happens by itself within the hour
    Expire {
        /// Room id
        room: OwnedRoomId,
    },
    /// Remove old messages of a room, in the background; its state stays
    PurgeHistory {
        /// Room id
        room: OwnedRoomId,
        /// Messages older than so many days
        #[arg(long)]
        older_than_days: u64,
        /// Messages of this server's users too, which may be the only copies
        #[arg(long)]
        with_local: bool,
    },
}

/// `chappe admin servers`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Servers {
    /// Let a server or all servers under a domain (*.example.gouv.fr) take part
    Allow {
        /// Server name or *.domain
        server: String,
    },
    /// Undo that
    Deny {
        /// As it was allowed
        server: String,
    },
    /// Show the list
    List,
}

/// What of `chappe admin network` a server does; the rest is [`crate::ListFile`].
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Show the list that is followed, and whether it is good
    Show,
    /// Show what a list would change: - before what is so now, + before what would be
    Diff {
        /// The list, signed or not; - reads standard input
        #[arg(value_name = "FILE", value_parser = contents)]
        text: String,
    },
    /// Follow a signed list, and publish it to the others; - reads standard input
    Apply {
        /// The list
        #[arg(value_name = "FILE", value_parser = contents)]
        text: String,
    },
    /// Ask the publishers for the list now
    Fetch,
}

/// `chappe admin destinations`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destinations {
    /// Show them, with what waits and when they are tried next
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on after this server
        #[arg(long)]
        after: Option<ruma::OwnedServerName>,
    },
    /// Try a server now, however long it was to be left alone
    Retry {
        /// Server name
        #[arg(required_unless_present = "all")]
        server: Option<ruma::OwnedServerName>,
        /// Try every server that something waits for, as after an outage of this one
        #[arg(long, conflicts_with = "server")]
        #[serde(default)]
        all: bool,
    },
}

/// `chappe admin tokens`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// Make a token
    Create {
        /// The token; drawn unless given
        #[arg(long)]
        token: Option<String>,
        /// How many accounts it is good for; any number unless given
        #[arg(long)]
        uses: Option<u64>,
        /// How many hours it lives; for ever unless given
        #[arg(long)]
        hours: Option<u64>,
    },
    /// Show all tokens
    List,
    /// Remove a token
    Revoke {
        /// The token
        token: String,
    },
}

/// `chappe admin media`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// Show what is known of a file
    Show {
        /// mxc:// address
        address: OwnedMxcUri,
    },
    /// Give a file, and all with the same bytes, to nobody any more
    Quarantine {
        /// mxc:// address
        address: OwnedMxcUri,
    },
    /// Undo that
    Unquarantine {
        /// mxc:// address
        address: OwnedMxcUri,
    },
    /// Give the files that a room's messages name to nobody any more
    QuarantineRoom {
        /// Room id
        room: OwnedRoomId,
    },
    /// Delete a file
    Delete {
        /// mxc:// address
        address: OwnedMxcUri,
    },
    /// Delete copies of other servers' files that nobody has asked for lately; they are fetched again when asked for
    PurgeRemote {
        /// For so many days
        #[arg(long)]
        unused_days: u64,
    },
}

/// `chappe admin reports`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reports {
    /// Show them, the newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one with the event
    Show {
        /// Number, as the list shows it
        id: u64,
    },
    /// Delete one that was dealt with
    Dismiss {
        /// Number, as the list shows it
        id: u64,
    },
}

/// `chappe admin notices`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notices {
    /// Say something to a user, in the room of the server's notices
    Send {
        /// User name or user id
        user: String,
        /// What to say; - reads standard input
        #[arg(value_parser = said)]
        text: String,
    },
    /// Say something to everybody, or to all whose address is of some domains, in the background
    Announce {
        /// Domain, *.domain or address; may be given several times
        #[arg(long)]
        to: Vec<String>,
        /// File with the same as HTML, - for standard input
        #[arg(long, value_name = "FILE", value_parser = contents)]
        html: Option<String>,
        /// What to say; - reads standard input
        #[arg(value_parser = said)]
        text: String,
    },
}

/// `chappe admin jobs`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jobs {
    /// Show them, with what came of those that ended lately
    List,
}

/// `chappe admin config`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Configuration {
    /// Read the configuration again, as `SIGHUP` does, and say which changed keys hold now and which from the next start on
    Reload,
}

/// `chappe admin stats`.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Stats {
    /// The first day, as 2026-11-30 (UTC); 30 days before the last one unless given
    #[arg(long)]
    pub from: Option<String>,
    /// The last day; today unless given
    #[arg(long)]
    pub to: Option<String>,
    /// Put the days together by domain and kind, or by kind alone
    #[arg(long)]
    pub by: Option<Grouping>,
    /// Print comma-separated values
    #[arg(long)]
    pub csv: bool,
}

/// `chappe admin signing-key`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningKey {
    /// Show the public keys, as ID=BASE64: the one that signs, the one that follows at the next start, those before
    Show,
    /// Make another key, which signs from the next start of the server on, and show its public half; the present one stays
    /// known for old events
    Rotate,
}

/// `chappe admin audit`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// Show entries, the newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Only those older than the one with this number
        #[arg(long)]
        before: Option<u64>,
    },
    /// Check that no entry was changed or taken out, and print a mark to note elsewhere
    Verify {
        /// A mark noted earlier, which must still fit
        #[arg(long, value_name = "NUMBER:HASH")]
        noted: Option<String>,
    },
}

impl Verb {
    /// Whether this is only looked at by operators: it changes nothing and shows nothing of what users say.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Domains(
                Domains::List
                    | Domains::Check { .. }
                    | Domains::Map(MapVerb::List | MapVerb::Check { .. } | MapVerb::Export)
            ) | Self::Users(Users::List { .. } | Users::Show { .. })
                | Self::Rooms(Rooms::List { .. } | Rooms::Show { .. })
                | Self::Servers(Servers::List)
                | Self::Network(Network::Show | Network::Diff { .. })
                | Self::Destinations(Destinations::List { .. })
                | Self::Tokens(Tokens::List)
                | Self::Media(Media::Show { .. })
                | Self::Reports(Reports::List { .. })
                | Self::Jobs(Jobs::List)
                | Self::Audit(_)
                | Self::Stats(_)
                | Self::SigningKey(SigningKey::Show)
                | Self::Status
        )
    }
}

fn said(text: &str) -> Result<String, String> {
    if text == "-" { contents(text) } else { Ok(text.to_owned()) }
}

fn contents(file: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        file => std::fs::read_to_string(file).map(|read| text = read),
    };
    read.map(|()| text).map_err(|error| format!("{file}: {error}"))
}

fn first_line(file: &str) -> Result<String, String> {
    contents(file).map(|text| text.lines().next().unwrap_or_default().to_owned())
}

/// The server may have another working folder.
fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}
