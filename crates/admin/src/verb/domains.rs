//! The verbs about e-mail addresses and where they belong.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::contents;

/// `chappe admin domains`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domains {
    /// Let a domain (example.gouv.fr), its sub-domains (*.example.gouv.fr) or one address in
    Add {
        /// Domain, *.domain or address
        rule: String,
        /// Why, for those who read the list later
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take a rule off the list; accounts that exist stay
    Remove {
        /// As it was added
        rule: String,
    },
    /// Show all rules
    List,
    /// Say whether an address may sign up, and by which rule
    Check {
        /// The address
        address: String,
    },
    /// Add the rules of a file: one a line, # begins a comment, - reads standard input
    Import {
        /// The file
        #[arg(value_name = "FILE", value_parser = contents)]
        text: String,
    },
    /// Which homeserver of the network serves which address; with a map, it decides who may sign up here
    #[command(subcommand)]
    Map(MapVerb),
}

/// `chappe admin domains map`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapVerb {
    /// Say where one address, a domain, its sub-domains (*.example.gouv.fr) or everybody else (*) belong
    Add {
        /// Address, domain, *.domain or *
        whom: String,
        /// The homeserver they belong to
        #[command(flatten)]
        target: Target,
    },
    /// Take such a line out
    Remove {
        /// As it was added
        whom: String,
    },
    /// Say where addresses belong that match a regular expression as a whole, after all that is more precise
    AddPattern {
        /// The regular expression, such as '.*@(.*\.|)example\.gouv\.fr'
        regex: String,
        /// The homeserver they belong to
        #[command(flatten)]
        target: Target,
        /// Its place among the patterns, counted from 1; the last one unless given
        #[arg(long)]
        place: Option<usize>,
    },
    /// Take a pattern out
    RemovePattern {
        /// As it was added
        regex: String,
    },
    /// Show the whole map
    List,
    /// Say where an address belongs and why
    Check {
        /// The address
        address: String,
    },
    /// Replace the whole map by a file of the form info.yaml; - reads standard input
    Import {
        /// The file
        #[arg(value_name = "FILE", value_parser = contents)]
        text: String,
    },
    /// Add the lines of a CSV file to the map, or change them; its first line names its columns: domain (or address,
    /// *.domain, *), homeserver, and if wanted `shadow_homeserver`, `requires_invite` (true or false)
    Merge {
        /// The file, - for standard input
        #[arg(value_name = "FILE", value_parser = contents)]
        text: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the map in the form of info.yaml
    Export,
}

/// Where addresses belong.
#[derive(clap::Args, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Server name of the homeserver
    pub hs: ruma::OwnedServerName,
    /// Server name for callers outside the protected network
    #[arg(long)]
    pub shadow_hs: Option<ruma::OwnedServerName>,
    /// Only the invited may sign up there
    #[arg(long)]
    pub requires_invite: bool,
}
