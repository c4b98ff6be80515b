//! A list of a network's servers as a file in the making: made, changed and signed where the key of the trust root is, with no
//! server near.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chappe_federation::{Member, NetworkList, VerifyKey, cosign, weak_keys};
use chappe_identity::{MapTarget, day_of};
use chappe_rules::build::SigningKey;
use chappe_world::World;
use clap::Subcommand;
use ruma::{OwnedServerName, OwnedServerSigningKeyId};
use serde_json::json;

use crate::{Answer, Error};

/// Milliseconds of a day.
const DAY: u64 = 24 * 3_600_000;

/// What of `chappe admin network` is done to a file.
#[derive(Subcommand)]
pub enum ListFile {
    /// Make a key for a trust root; its public half goes into the configurations of all servers
    Key {
        /// The file to write: keep it off the servers
        file: PathBuf,
    },
    /// Make a list with nobody on it
    Create {
        /// The file to write
        file: PathBuf,
        /// What the network is called, such as example.gouv.fr
        #[arg(long)]
        name: OwnedServerName,
    },
    /// Put a server on the list, or say more of one that is on it
    Add {
        /// The list
        file: PathBuf,
        /// The server
        server: OwnedServerName,
        /// Whose addresses are its users': address, domain, *.domain or *; may be given several times
        #[arg(long = "addresses", value_name = "WHOM")]
        addresses: Vec<String>,
        /// Only the invited may sign up with these addresses
        #[arg(long)]
        requires_invite: bool,
        /// A key that it signs with, as ID=BASE64: with any, no others are believed; may be given several times
        #[arg(long = "key", value_name = "KEY", value_parser = key_pair)]
        keys: Vec<(OwnedServerSigningKeyId, String)>,
        /// From the beginning of which day (UTC) it belongs to the network
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = beginning)]
        valid_from: Option<u64>,
        /// Until the beginning of which day (UTC) it does
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = beginning)]
        valid_until: Option<u64>,
    },
    /// Take a server off the list, with what belongs to it
    Remove {
        /// The list
        file: PathBuf,
        /// The server
        server: OwnedServerName,
    },
    /// Give the list the next number and sign it; signatures that it had are gone
    Sign {
        /// The list
        file: PathBuf,
        /// The key of a trust root
        #[arg(long)]
        key: PathBuf,
        /// For how many days it is good
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// Only add a signature, of another trust root: number and times stay
        #[arg(long, conflicts_with = "days")]
        also: bool,
    },
}

impl ListFile {
    /// Does what is asked.
    pub fn run(self, world: &World) -> Result<Answer, Error> {
        match self {
            Self::Key { file } => make_key(&file, world),
            Self::Create { file, name } => {
                let list = NetworkList::new(name);
                write(&file, &list.unsigned(), Fresh::Must)?;
                Ok(said(&file, &list, "made: add servers, then sign it"))
            }
            Self::Add { file, server, addresses, requires_invite, keys, valid_from, valid_until } => {
                let mut list = read(&file)?;
                let target = MapTarget { hs: server.clone(), shadow_hs: None, requires_invite };
                list.addresses.extend(addresses.into_iter().map(|whom| (whom, target.clone())));
                let keys = keys.into_iter().map(|(id, key)| (id, VerifyKey { key }));
                let member: &mut Member = list.servers.entry(server.clone()).or_default();
                member.verify_keys.extend(keys);
                member.valid_from = valid_from.or(member.valid_from);
                member.valid_until = valid_until.or(member.valid_until);
                save(&file, &list, &format!("{server} is on the list"))
            }
            Self::Remove { file, server } => {
                let mut list = read(&file)?;
                if list.servers.remove(&server).is_none() {
                    return Err(Error::NotFound(server.to_string()));
                }
                let named =
                    |target: &MapTarget| target.hs == server || target.shadow_hs.as_ref() == Some(&server);
                list.addresses.retain(|_, target| !named(target));
                list.patterns.retain(|pattern| !named(&pattern.target));
                save(&file, &list, &format!("{server} is not on the list any more"))
            }
            Self::Sign { file, key, days, also } => sign(&file, &key, (!also).then_some(days), world),
        }
    }
}

fn sign(file: &Path, key: &Path, days: Option<u64>, world: &World) -> Result<Answer, Error> {
    let secret = std::fs::read_to_string(key).map_err(at(key))?;
    let signer = SigningKey::from_line(&secret)
        .map_err(|error| Error::Invalid(format!("{}: {error}", key.display())))?;
    let list = read(file)?;
    list.check(&weak_keys()).map_err(|error| invalid(&error))?;
    let now = world.now();
    let signed = match days {
        Some(days) => list.sign(&signer, now, now.saturating_add(days * DAY)),
        None => {
            let bytes = std::fs::read(file).map_err(at(file))?;
            if !is_signed(&bytes) {
                return Err(Error::Invalid(
                    "nobody has signed this list yet: sign it without --also".to_owned(),
                ));
            }
            cosign(&bytes, &signer)
        }
    };
    let signed = signed.map_err(|error| invalid(&error))?;
    write(file, &signed, Fresh::Replace)?;
    Ok(said(file, &read(file)?, &format!("signed by {}", signer.id())))
}

/// A list that was changed is signed anew, with another number.
fn is_signed(list: &[u8]) -> bool {
    let read = serde_json::from_slice::<serde_json::Value>(list).unwrap_or_default();
    read["signatures"].as_object().is_some_and(|servers| !servers.is_empty())
}

fn make_key(file: &Path, world: &World) -> Result<Answer, Error> {
    let version = format!("root_{}", world.token(6));
    let key = SigningKey::from_seed(world.bytes(), &version).map_err(|error| invalid(&error))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| {
        writeln!(opened, "{}", key.to_line().trim_end())?;
        opened.sync_all()
    });
    written.map_err(at(file))?;
    let (id, public) = (key.id(), key.public_base64());
    let lines = vec![
        format!("{} holds the secret half. The configuration of every server:", file.display()),
        "[federation.network]".to_owned(),
        format!("trust_roots = {{ \"{id}\" = \"{public}\" }}"),
    ];
    Ok(Answer { lines, data: json!({ "key_id": id, "public_key": public }) })
}

fn save(file: &Path, list: &NetworkList, what: &str) -> Result<Answer, Error> {
    list.check(&weak_keys()).map_err(|error| invalid(&error))?;
    write(file, &list.unsigned(), Fresh::Replace)?;
    Ok(said(file, list, &format!("{what}: sign it")))
}

fn said(file: &Path, list: &NetworkList, what: &str) -> Answer {
    let data =
        json!({ "sequence": list.sequence, "expires_at": list.expires_at, "servers": list.servers.len() });
    Answer::line(
        format!("{}: {what} (number {}, {} servers)", file.display(), list.sequence, list.servers.len()),
        data,
    )
}

fn read(file: &Path) -> Result<NetworkList, Error> {
    NetworkList::read(&std::fs::read(file).map_err(at(file))?).map_err(|error| invalid(&error))
}

/// Whether a file may be there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Must,
    Replace,
}

/// Writes a file beside its place first: it is the old one or the new one, never half of one.
fn write(file: &Path, text: &str, fresh: Fresh) -> Result<(), Error> {
    if fresh == Fresh::Must && file.exists() {
        return Err(Error::Invalid(format!("{} is there already", file.display())));
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = file.with_file_name(format!(".{name}.new"));
    // Nobody else's file, and no link to one.
    let opened = OpenOptions::new().write(true).create_new(true).open(&new).map_err(at(&new))?;
    let written = write_to(opened, text).and_then(|()| std::fs::rename(&new, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.and_then(|()| sync_folder(file)).map_err(at(file))
}

fn write_to(mut opened: File, text: &str) -> std::io::Result<()> {
    writeln!(opened, "{}", text.trim_end())?;
    opened.sync_all()
}

fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn at(file: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let place = file.display().to_string();
    |error| Error::File { place, error }
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

/// The first millisecond of a day.
fn beginning(date: &str) -> Result<u64, String> {
    day_of(date).map(|day| day * DAY).ok_or_else(|| "write YYYY-MM-DD".to_owned())
}

fn key_pair(text: &str) -> Result<(OwnedServerSigningKeyId, String), String> {
    let (id, key) = text.split_once('=').ok_or("write ID=BASE64")?;
    let id = OwnedServerSigningKeyId::try_from(id).map_err(|error| error.to_string())?;
    if chappe_federation::is_public_key(key) {
        Ok((id, key.to_owned()))
    } else {
        Err("not a public key".to_owned())
    }
}
