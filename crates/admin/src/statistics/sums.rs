//! Figures in the making, and whose domain somebody belongs to.

use std::collections::{BTreeMap, HashMap};

use chappe_accounts::UserKind;
use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts::{LastActive, Threepids, Users},
    statistics::{Figure, Statistics, StatisticsDay},
};
use ring::digest::{SHA256, digest};
use ruma::{OwnedUserId, ServerName, UserId};

use crate::Error;

/// A figure's place: day, domain, kind.
type Place = (u64, String, String);

/// What is added to figures by one commit.
pub(super) struct Sums {
    smallest: usize,
    figures: BTreeMap<Place, Figure>,
}

impl Sums {
    /// Nothing yet; groups of `smallest` people may be shown.
    pub(super) fn new(smallest: usize) -> Self {
        Self { smallest, figures: BTreeMap::new() }
    }

    /// Adds something of a person.
    pub(super) fn add(&mut self, (day, domain, kind): (u64, &str, &str), of: &UserId, count: u64) {
        let figure = self.figures.entry((day, domain.to_owned(), kind.to_owned())).or_default();
        figure.count += count;
        join(&mut figure.people, [part_of_hash(day, of)], self.smallest);
    }

    /// Adds all to what is stored. The caller is the only writer.
    pub(super) async fn draft(self, reader: &Reader<'_>, tx: &mut Tx) -> Result<(), Error> {
        let (places, new): (Vec<Place>, Vec<Figure>) = self.figures.into_iter().unzip();
        let known = reader.get_many::<Statistics>(&places).await?;
        for ((place, new), known) in places.iter().zip(new).zip(known) {
            let Json(mut figure) = known.unwrap_or_default();
            figure.count += new.count;
            join(&mut figure.people, new.people, self.smallest);
            tx.put::<Statistics>(place, &Json(figure));
        }
        Ok(())
    }

    /// Puts all in the place of what is stored.
    pub(super) fn draft_anew(self, tx: &mut Tx) {
        for (place, figure) in self.figures {
            tx.put::<Statistics>(&place, &Json(figure));
        }
    }
}

/// Adds people whom a figure does not have yet, until there are enough.
pub(super) fn join(people: &mut Vec<u32>, more: impl IntoIterator<Item = u32>, enough: usize) {
    for person in more {
        if people.len() < enough && !people.contains(&person) {
            people.push(person);
        }
    }
}

/// Tells people of one day apart, and says nothing of them on another.
fn part_of_hash(day: u64, user: &UserId) -> u32 {
    let hash = digest(&SHA256, format!("{day} {user}").as_bytes());
    hash.as_ref().iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// Forgets all figures before a day.
pub(super) fn forget_before(tx: &mut Tx, day: u64) {
    tx.delete_between::<Statistics>(&0_u64, &day);
}

/// Forgets all figures, and when people were here.
pub(super) fn forget_all(tx: &mut Tx) {
    tx.delete_prefix::<Statistics>(&()).delete::<StatisticsDay>(&()).delete_prefix::<LastActive>(&());
}

/// Where people belong, as far as it was asked.
#[derive(Default)]
pub(super) struct People(HashMap<OwnedUserId, Option<String>>);

impl People {
    /// The domain of a person's e-mail address, or the name of the server without one; `None` for whoever is no person:
    /// guests, users of application services, users of other servers.
    pub(super) async fn domain(
        &mut self,
        reader: &Reader<'_>,
        user: &UserId,
        server: &ServerName,
    ) -> Result<Option<String>, Error> {
        if let Some(known) = self.0.get(user) {
            return Ok(known.clone());
        }
        let found = domain(reader, user, server).await?;
        self.0.insert(user.to_owned(), found.clone());
        Ok(found)
    }
}

async fn domain(reader: &Reader<'_>, user: &UserId, server: &ServerName) -> Result<Option<String>, Error> {
    let key = user.to_owned();
    let Some(Json(record)) = reader.get::<Users>(&key).await? else { return Ok(None) };
    if record.kind != UserKind::User {
        return Ok(None);
    }
    let bound = reader.scan::<Threepids>(&(key, "email".to_owned()), Direction::Forward, 1).await?;
    let address = bound.into_iter().next().map(|((_, _, address), _)| address);
    // A closed account has its addresses in its record.
    let former = || {
        let mut addresses = record.deactivated?.addresses.into_iter();
        addresses.find(|(medium, _)| medium == "email").map(|(_, address)| address)
    };
    let address = address.or_else(former);
    let domain = address.and_then(|address| Some(address.rsplit_once('@')?.1.to_owned()));
    Ok(Some(domain.unwrap_or_else(|| server.to_string())))
}
