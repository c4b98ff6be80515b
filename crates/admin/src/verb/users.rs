//! The verbs about accounts of this server.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::{contents, first_line};

/// `chappe admin users`.
#[derive(Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// Show accounts
    List {
        /// Only those whose user id contains this
        #[arg(long)]
        containing: Option<String>,
        /// Closed accounts as well
        #[arg(long)]
        deactivated: bool,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on after this user id
        #[arg(long)]
        after: Option<String>,
    },
    /// Show one account with its addresses and devices
    Show {
        /// User name or user id
        user: String,
    },
    /// Make an account; a password is drawn and shown unless one is given
    Create {
        /// User name
        user: String,
        /// File with the password, - for standard input
        #[arg(long = "password-file", value_name = "FILE", value_parser = first_line)]
        password: Option<String>,
        /// Make it an administrator
        #[arg(long)]
        admin: bool,
        /// Display name
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Make the accounts of a CSV file whose first line names its columns: user, and if wanted `display_name`, email,
    /// `password_hash` (argon2, or bcrypt with the pepper of the configuration); - reads standard input
    Import {
        /// The file
        #[arg(value_name = "FILE", value_parser = contents)]
        // Named so that the audit log leaves it out: there are hashes of passwords in it.
        #[serde(rename = "secrets")]
        text: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Set a new password and log all devices out; it is drawn and shown unless one is given
    ResetPassword {
        /// User name or user id
        user: String,
        /// File with the password, - for standard input
        #[arg(long = "password-file", value_name = "FILE", value_parser = first_line)]
        password: Option<String>,
    },
    /// End all devices of an account and its log-ins in browsers
    LogOut {
        /// User name or user id
        user: String,
    },
    /// Close an account for good
    Deactivate {
        /// User name or user id
        user: String,
        /// Forget profile, data and keys as well, and leave what was said to those who were there
        #[arg(long)]
        erase: bool,
    },
    /// Make an administrator, or with --revoke make an ordinary user
    Admin {
        /// User name or user id
        user: String,
        /// Take the right away
        #[arg(long)]
        revoke: bool,
    },
    /// Let an account be entered no more by an account with an identity provider, as `show` lists them
    Unlink {
        /// User name or user id
        user: String,
        /// Issuer URL of the provider
        issuer: String,
        /// Who it is there; all of that provider unless given
        subject: Option<String>,
    },
    /// Say when an account ends, or with an option set it; what was mailed before renews it no more
    Validity {
        /// User name or user id
        user: String,
        /// Let it end so many days from now; 0 is now
        #[arg(long)]
        days: Option<u32>,
        /// Give it another whole period
        #[arg(long, conflicts_with = "days")]
        renew: bool,
        /// Send no mails before the end
        #[arg(long)]
        quiet: bool,
    },
    /// Refuse every request of an account until it is unlocked
    Lock {
        /// User name or user id
        user: String,
    },
    /// Undo a lock
    Unlock {
        /// User name or user id
        user: String,
    },
}
