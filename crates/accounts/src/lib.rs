//! Users, passwords, devices, tokens, user-interactive authentication, end-to-end keys, to-device inbox, account data, profiles.
//!
//! Everything keyed by a user or a device, behind one handle: [`Accounts`]. What a device has to be told of is
//! written to the log in the same transaction as the change. This crate knows no rooms and no HTTP.

mod account_data;
mod accounts;
mod appservices;
mod audit;
mod backup;
mod config;
mod dehydrated;
mod devices;
mod directory;
mod error;
mod external_ids;
mod filters;
mod hashes;
mod invites;
mod keys;
mod listing;
mod oauth;
mod one_off;
mod passwords;
mod profiles;
mod push_rules;
mod pushers;
mod registration;
mod remote;
mod requester;
mod retry;
mod strength;
mod threepids;
mod to_device;
mod token_cache;
mod tokens;
mod uia;
mod uia_sessions;
mod users;
mod validity;

pub use chappe_store::accounts::{
    Deactivation, Device, OAuthLogIn, OneOffPurpose, OwnRate, RegistrationToken, Seen, User, UserKind,
};

pub use chappe_store::LogInMethod;

pub use self::{
    account_data::{AccountDataItem, Scope},
    accounts::Accounts,
    audit::{Audit, Verdict},
    backup::{BackupInfo, BackupKey, BackupKeysChange, BackupKeysMap},
    config::{
        AccountsConfig, LimitsConfig, PasswordConfig, PasswordPolicy, Pepper, TokenConfig, ValidityConfig,
    },
    dehydrated::{DehydratedMessages, Dehydrating},
    devices::DeviceInfo,
    directory::{Reach, UserInfo},
    error::{Error, Weakness},
    external_ids::{ExternalAccount, ExternalLink},
    invites::{InviteFilter, Welcome},
    keys::{
        Claim, ClaimedKeys, CrossSigningUpload, DeviceListChange, KeyCounts, KeyUpload, PublicKeys,
        RemoteDeviceUpdate, RemoteUpdate, Replace, Usage,
    },
    listing::{ListedUser, UserOrder, UserPage, UserQuery},
    oauth::OAuthGrant,
    profiles::Profile,
    pushers::{OtherUsers, PusherInfo},
    remote::{Asker, RemoteError, RemoteKeys, RemoteUsers, to_device_for_servers},
    requester::Requester,
    threepids::ThreepidInfo,
    to_device::{Recipients, Sending, ToDeviceMessage},
    tokens::{Issued, LogIn, Refreshing},
    uia::{EmailStage, Operation, Proof, ProvedEmail, UiaSession, Verified},
    users::{Erase, NewUser, OtherDevices, UserFilter},
    validity::{Duty, Reminder, RenewalSecret, Renewed, Validity},
};

#[cfg(test)]
mod tests;
