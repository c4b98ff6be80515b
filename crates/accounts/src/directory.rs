//! What a directory may tell of the users of this server: who finds them, and whether their accounts are open.

use std::collections::BTreeMap;

use chappe_store::{
    Json, Reader,
    accounts::{User, Users},
    accounts_data::AccountData,
};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Accounts, Error};

/// Global account data of Tchap's clients: with `hide_profile`, only those who share a room find the user.
const RED_LIST: &str = "im.vector.hide_profile";
/// Global account data of MSC4258: `visibility` is `hidden`, `local`, `restricted` or `remote`.
const DIRECTORY: &str = "m.user_directory";

/// Who does not find a user, by the user's own account data. Nothing said: whoever the server lets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nobody finds them.
    pub hidden: bool,
    /// Only users of this server do.
    pub here: bool,
    /// Only those do who share a room with them.
    pub met: bool,
}

impl Reach {
    fn of(red_list: &Value, directory: &Value) -> Self {
        let mut reach = Self { met: red_list["hide_profile"] == true, ..Self::default() };
        match &directory["visibility"] {
            Value::Null => {}
            Value::String(level) if level == "remote" => {}
            Value::String(level) if level == "local" => reach.here = true,
            Value::String(level) if level == "restricted" => reach.met = true,
            // Whoever asks for what is not understood here did not ask to be shown.
            _ => reach.hidden = true,
        }
        reach
    }
}

/// What bots and clients ask of many users at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The account has ended and was not renewed.
    pub expired: bool,
    /// The account is closed.
    pub deactivated: bool,
}

impl Accounts {
    /// Who finds a user of this server, as the account data say now: one round trip.
    pub async fn reach(&self, reader: &Reader<'_>, user: &UserId) -> Result<Reach, Error> {
        let keys = [RED_LIST, DIRECTORY].map(|kind| (user.to_owned(), String::new(), kind.to_owned()));
        let mut contents = reader.get_many::<AccountData>(&keys).await?.into_iter();
        let mut next = || {
            let content = contents.next().flatten();
            content.and_then(|content| serde_json::from_slice(&content.value).ok()).unwrap_or(Value::Null)
        };
        Ok(Reach::of(&next(), &next()))
    }

    /// How the accounts of local users stand; those who have none are left out: one round trip.
    pub async fn user_infos(&self, users: &[OwnedUserId]) -> Result<BTreeMap<OwnedUserId, UserInfo>, Error> {
        let found = self.store().read().get_many::<Users>(users).await?;
        let info = |(user, found): (&OwnedUserId, Option<Json<User>>)| {
            let Json(account) = found?;
            let info =
                UserInfo { expired: self.is_over(&account), deactivated: account.deactivated.is_some() };
            Some((user.clone(), info))
        };
        Ok(users.iter().zip(found).filter_map(info).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Reach;

    #[test]
    fn the_stricter_of_two_wishes_counts() {
        let open = Reach::default();
        let (hidden, here, met) =
            (Reach { hidden: true, ..open }, Reach { here: true, ..open }, Reach { met: true, ..open });
        let listed = json!({ "hide_profile": true });
        for (red_list, level, reach) in [
            (&Value::Null, Value::Null, open),
            (&json!({ "hide_profile": false }), json!("remote"), open),
            (&json!({ "hide_profile": "yes" }), Value::Null, open),
            (&listed, json!("remote"), met),
            (&listed, json!("local"), Reach { here: true, ..met }),
            (&Value::Null, json!("local"), here),
            (&Value::Null, json!("restricted"), met),
            (&Value::Null, json!("hidden"), hidden),
            (&Value::Null, json!("nobody"), hidden),
            (&Value::Null, json!(7), hidden),
        ] {
            assert_eq!(Reach::of(red_list, &json!({ "visibility": level })), reach, "{red_list} {level}");
        }
    }
}
