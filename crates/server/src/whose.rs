//! Whose a database is: its server's name is on disk from the first start on, so that nobody opens it under another one, to whom
//! all that is its own would be others'.

use anyhow::{Result, ensure};
use chappe_kv::Db;
use chappe_store::{
    Error, Meta, Reader, Store, Tx,
    accounts::{PasswordCosts, Users},
};
use ruma::ServerName;

/// The row with the name.
const NAME: &str = "server_name";
/// Accounts read at once.
const PAGE: usize = 1_000;

/// Refuses the database of another server. Gives whether it is new: no server has started on it.
/// It is only looked at: opening a store changes one of an older release.
pub(crate) async fn check(db: &Db, server: &ServerName) -> Result<bool> {
    let store = Store::new(db.clone());
    let reader = store.read();
    let name = match reader.get::<Meta>(&NAME.to_owned()).await? {
        Some(name) => Some(String::from_utf8(name).map_err(|_| Error::Corrupt("name of the server"))?),
        None => named_by_accounts(&reader, server).await?,
    };
    let Some(name) = name else {
        // Every start notes them once there is a key: older releases, too, that did not note the name.
        return Ok(reader.get::<PasswordCosts>(&()).await?.is_none());
    };
    ensure!(
        name == server.as_str(),
        "the database is that of {name}, and `server_name` is {server}: a server cannot change its name"
    );
    Ok(false)
}

/// Whose a database is that does not say it, as those of older releases: this server's if any account is, else that of the
/// first account.
async fn named_by_accounts(reader: &Reader<'_>, server: &ServerName) -> Result<Option<String>, Error> {
    let (mut first, mut from) = (None, String::new());
    loop {
        let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(first) };
        from = format!("{last}\0");
        if page.iter().any(|(user, _)| user.server_name() == server) {
            return Ok(Some(server.to_string()));
        }
        first = first.or_else(|| page.first().map(|(user, _)| user.server_name().to_string()));
    }
}

/// Writes the name, unless it is there.
pub(crate) async fn note(store: &Store, server: &ServerName) -> Result<(), Error> {
    if store.read().get::<Meta>(&NAME.to_owned()).await?.is_some() {
        return Ok(());
    }
    let mut tx = Tx::new();
    tx.put::<Meta>(&NAME.to_owned(), &server.as_str().as_bytes().to_vec());
    store.commit(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use chappe_store::{
        Json, Store, Tx,
        accounts::{PasswordCosts, User, Users},
    };
    use ruma::{OwnedUserId, server_name, user_id};

    use super::{PAGE, check, note};

    #[tokio::test]
    async fn a_database_is_opened_under_its_own_name_alone() {
        let db = Db::new(Memory::default());
        let (own, other) = (server_name!("a.example"), server_name!("b.example"));
        for _ in 0..2 {
            assert!(check(&db, other).await.unwrap(), "to look changes nothing");
        }
        for _ in 0..2 {
            note(&Store::new(db.clone()), own).await.unwrap();
            assert!(!check(&db, own).await.unwrap());
        }
        let refused = check(&db, other).await.unwrap_err().to_string();
        assert!(refused.contains("a.example") && refused.contains("b.example"), "{refused}");
    }

    #[tokio::test]
    async fn one_in_which_nobody_has_an_account_yet_is_new_only_before_the_first_start() {
        let db = Db::new(Memory::default());
        let store = Store::open(db.clone()).await.unwrap();
        assert!(check(&db, server_name!("a.example")).await.unwrap());
        let mut tx = Tx::new();
        tx.put::<PasswordCosts>(&(), &Json(["$argon2id$".to_owned()].into()));
        store.commit(tx).await.unwrap();
        assert!(!check(&db, server_name!("a.example")).await.unwrap());
    }

    #[tokio::test]
    async fn one_that_does_not_say_it_is_known_by_its_accounts() {
        let db = Db::new(Memory::default());
        let mut tx = Tx::new();
        for n in 0..PAGE {
            let user: OwnedUserId = format!("@a{n:04}:a.example").try_into().unwrap();
            tx.put::<Users>(&user, &Json(User::default()));
        }
        tx.put::<Users>(&user_id!("@z:c.example").to_owned(), &Json(User::default()));
        Store::new(db.clone()).commit(tx).await.unwrap();
        let refused = check(&db, server_name!("b.example")).await.unwrap_err().to_string();
        assert!(refused.contains("that of a.example"), "{refused}");
        for own in [server_name!("a.example"), server_name!("c.example")] {
            assert!(!check(&db, own).await.unwrap(), "{own} has accounts in it");
        }
    }
}
