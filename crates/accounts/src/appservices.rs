//! Application services as clients: their tokens, acting as their users, making users.
//!
//! Specification: application service API, "Client-Server API Extensions".

use std::{collections::HashMap, sync::Arc};

use chappe_rules::appservice::{Registration, Registrations};
use chappe_store::{
    Json,
    accounts::{Devices, UserKind, Users},
};
use ruma::{DeviceId, OwnedUserId, UserId};

use crate::{Accounts, Error, NewUser, Requester, requester::Admission, tokens::sha256};

/// The application services, and which token is whose.
#[derive(Default)]
pub(crate) struct Services {
    all: Registrations,
    /// By the hash of the token: comparing hashes tells nothing of a token.
    by_token: HashMap<[u8; 32], Arc<Registration>>,
}

impl Services {
    pub(crate) fn new(all: Registrations) -> Self {
        let by_token =
            all.iter().map(|service| (sha256(service.as_token.reveal()), service.clone())).collect();
        Self { all, by_token }
    }
}

impl Accounts {
    /// The application services of this server.
    pub fn appservices(&self) -> &Registrations {
        &self.inner.services.all
    }

    /// The application service whose token this is.
    pub fn appservice_of(&self, token: &str) -> Option<&Arc<Registration>> {
        if self.inner.services.by_token.is_empty() {
            return None;
        }
        self.inner.services.by_token.get(&sha256(token))
    }

    /// An application service as one of its users, its own by default, and as one of that user's devices.
    /// [`Error::Forbidden`] for users that are not its, or not there; [`Error::UnknownDevice`]; [`Error::Deactivated`];
    /// [`Error::Locked`]; [`Error::Expired`]. It is never a server administrator, whoever it acts as.
    pub async fn masquerade(
        &self,
        service: &Arc<Registration>,
        user: Option<&UserId>,
        device: Option<&DeviceId>,
    ) -> Result<Requester, Error> {
        let user = user.unwrap_or(&service.sender).to_owned();
        if !service.covers_user(&user) {
            return Err(Error::Forbidden("this application service cannot act as this user"));
        }
        let version = self.inner.cache.version(&user);
        let reader = self.store().read();
        let Some(Json(record)) = reader.get::<Users>(&user).await? else {
            return Err(Error::Forbidden("this application service has not registered this user"));
        };
        if record.deactivated.is_some() {
            return Err(Error::Deactivated);
        }
        if record.locked {
            return Err(Error::Locked);
        }
        self.check_end(&user, &record).await?;
        if let Some(device) = device {
            let found = reader.get::<Devices>(&(user.clone(), device.to_owned())).await?;
            if found.is_none_or(|Json(found)| found.dehydrated) {
                return Err(Error::UnknownDevice);
            }
        }
        Ok(Requester {
            user_id: user,
            device_id: device.map(ToOwned::to_owned),
            kind: record.kind,
            admin: false,
            suspended: record.suspended,
            rate: record.rate,
            oauth: false,
            appservice: Some(service.clone()),
            admission: Admission { version, until: self.end_of(&record), token: None, log_in: None },
        })
    }

    /// A user that an application service registers or logs in: [`Error::Reserved`] unless it is its own to have.
    pub fn user_of_service(&self, service: &Registration, name: &str) -> Result<OwnedUserId, Error> {
        let user = self.local_user(name)?;
        if !service.covers_user(&user) || self.appservices().reserve_user(&user, Some(service)) {
            return Err(Error::Reserved);
        }
        Ok(user)
    }

    /// Makes a user of an application service, without a password.
    pub async fn create_service_user(
        &self,
        service: &Registration,
        name: &str,
    ) -> Result<OwnedUserId, Error> {
        let user = self.user_of_service(service, name)?;
        let new = NewUser {
            localpart: Some(user.localpart().to_owned()),
            kind: UserKind::Appservice,
            appservice: Some(service.id.clone()),
            ..NewUser::default()
        };
        self.create_user(new).await
    }

    /// Makes the own users of all application services, where they are not there yet.
    pub async fn ensure_senders(&self) -> Result<(), Error> {
        for service in self.appservices() {
            match self.create_service_user(service, service.sender.localpart()).await {
                Ok(_) | Err(Error::UserInUse) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_rules::appservice::{Namespace, Namespaces, Registration, Registrations, Secret, Wants};
    use ruma::{device_id, owned_user_id, user_id};

    use crate::{Accounts, Error, NewUser, UserKind, tests::accounts_with};

    fn service(id: &str, users: &str, exclusive: bool) -> Registration {
        Registration {
            id: id.to_owned(),
            url: None,
            as_token: Secret::new(format!("as-{id}")),
            hs_token: Secret::new(format!("hs-{id}")),
            sender: format!("@{id}-bot:hs1").try_into().unwrap(),
            rate_limited: true,
            wants: Wants::default(),
            protocols: Vec::new(),
            namespaces: Namespaces {
                users: vec![Namespace::new(users, exclusive).unwrap()],
                ..Namespaces::default()
            },
        }
    }

    async fn two() -> (Accounts, Arc<Registration>, Arc<Registration>) {
        let services = [service("irc", "@_irc_.*", true), service("all", ".*", false)];
        let accounts = accounts_with(Registrations::new(services));
        accounts.ensure_senders().await.unwrap();
        let get = |id| accounts.appservices().get(id).unwrap().clone();
        let (irc, all) = (get("irc"), get("all"));
        (accounts, irc, all)
    }

    #[tokio::test]
    async fn a_service_acts_as_its_users_and_their_devices_alone() {
        let (accounts, irc, all) = two().await;
        assert_eq!(accounts.appservice_of("as-irc"), Some(&irc));
        assert_eq!(accounts.appservice_of("hs-irc"), None);
        let own = accounts.masquerade(&irc, None, None).await.unwrap();
        assert_eq!((own.user_id.as_str(), own.device_id), ("@irc-bot:hs1", None));
        let ann = user_id!("@_irc_ann:hs1");
        let unmade = accounts.masquerade(&irc, Some(ann), None).await;
        assert!(matches!(unmade, Err(Error::Forbidden(_))), "nobody acts as who is not there");
        accounts.create_service_user(&irc, "_irc_ann").await.unwrap();
        let device = device_id!("D");
        let unknown = accounts.masquerade(&irc, Some(ann), Some(device)).await;
        assert!(matches!(unknown, Err(Error::UnknownDevice)));
        accounts.ensure_device(ann, device, None).await.unwrap();
        let acting = accounts.masquerade(&irc, Some(ann), Some(device)).await.unwrap();
        assert_eq!((&*acting.user_id, acting.device_id.as_deref()), (ann, Some(device)));
        assert_eq!(acting.appservice, Some(irc.clone()));
        accounts
            .create_user(NewUser { localpart: Some("bob".to_owned()), ..NewUser::default() })
            .await
            .unwrap();
        for foreign in [user_id!("@bob:hs1"), user_id!("@_irc_ann:hs2"), user_id!("@all-bot:hs1")] {
            let refused = accounts.masquerade(&irc, Some(foreign), None).await;
            assert!(matches!(refused, Err(Error::Forbidden(_))), "{foreign}");
        }
        assert!(accounts.masquerade(&all, Some(user_id!("@bob:hs1")), None).await.is_ok());
        let stolen = accounts.masquerade(&irc, None, Some(device)).await;
        assert!(matches!(stolen, Err(Error::UnknownDevice)), "the device is another user's");
    }

    #[tokio::test]
    async fn a_service_has_no_powers_beyond_its_own() {
        let (accounts, _, all) = two().await;
        let root = NewUser { localpart: Some("root".to_owned()), admin: true, ..NewUser::default() };
        let root = accounts.create_user(root).await.unwrap();
        let acting = accounts.masquerade(&all, Some(&root), None).await.unwrap();
        assert!(!acting.admin && acting.must_be_admin().is_err());
        accounts.update_user(&root, |user| user.locked = true).await.unwrap();
        assert!(matches!(accounts.masquerade(&all, Some(&root), None).await, Err(Error::Locked)));
        accounts.update_user(&root, |user| user.suspended = true).await.unwrap();
        accounts.update_user(&root, |user| user.locked = false).await.unwrap();
        assert!(accounts.masquerade(&all, Some(&root), None).await.unwrap().may_act().is_err());
    }

    #[tokio::test]
    async fn exclusive_names_are_for_their_service() {
        let (accounts, irc, all) = two().await;
        for taken in ["irc-bot", "all-bot", "_irc_ann"] {
            let refused = accounts.check_available(taken, UserKind::User).await;
            assert!(matches!(refused, Err(Error::Reserved)), "{taken}");
        }
        let foreign = accounts.create_service_user(&all, "_irc_ann").await;
        assert!(matches!(foreign, Err(Error::Reserved)), "one service does not take another's");
        let outside = accounts.create_service_user(&irc, "ann").await;
        assert!(matches!(outside, Err(Error::Reserved)));
        let made = accounts.create_service_user(&irc, "_irc_ann").await.unwrap();
        assert_eq!(made, owned_user_id!("@_irc_ann:hs1"));
        let user = accounts.user(&made).await.unwrap().unwrap();
        assert_eq!((user.kind, user.appservice.as_deref()), (UserKind::Appservice, Some("irc")));
        let again = accounts.create_service_user(&irc, "@_irc_ann:hs1").await;
        assert!(matches!(again, Err(Error::UserInUse)));
        accounts.ensure_senders().await.unwrap();
    }
}
