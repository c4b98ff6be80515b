//! The rooms that application services list for third-party networks, beside the public directory.
//!
//! Specification: application service API, "Published room directories".

use std::collections::BTreeSet;

use chappe_store::{Reader, RoomNid, Tx, services::ServiceDirectory};
use ruma::{RoomId, directory::RoomNetwork};

use crate::{Access, Actor, Error, Result, Rooms, Visibility};

/// The longest name of a network, in bytes.
const LONGEST: usize = 255;

impl Rooms {
    /// Lists a room for one of a service's networks, or takes it out of that list. For services alone, whose acting user
    /// is in the room or to whom the room belongs.
    pub async fn set_service_listing(
        &self,
        actor: &Actor,
        network: &str,
        room: &RoomId,
        visibility: Visibility,
    ) -> Result<()> {
        let Some(service) = &actor.appservice else {
            return Err(Error::Forbidden("this is for application services".to_owned()));
        };
        if network.is_empty() || network.len() > LONGEST {
            return Err(Error::InvalidParam("this is not the name of a network".to_owned()));
        }
        let view = self.view(room).await?;
        if !service.covers_room(room) && view.access(&actor.user).await.ok() != Some(Access::Joined) {
            return Err(Error::Forbidden("you must be in the room to list it".to_owned()));
        }
        if visibility == Visibility::Public {
            self.check_publishable(actor, room).await?;
        }
        let key = (service.id.clone(), network.to_owned(), view.nid);
        drop(view);
        let mut tx = Tx::new();
        match visibility {
            Visibility::Public => tx.put::<ServiceDirectory>(&key, &()),
            Visibility::Private => tx.delete::<ServiceDirectory>(&key),
        };
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

/// The rooms listed for a network, by number. A service's network goes by the service's id, a bar, and its own name,
/// as clients are told by `/thirdparty/protocols`.
pub(super) async fn listed_for(reader: &Reader<'_>, network: &RoomNetwork) -> Result<Vec<RoomNid>> {
    Ok(match network {
        RoomNetwork::ThirdParty(instance) => match instance.split_once('|') {
            Some((service, network)) => reader.service_directory(service, network).await?,
            None => Vec::new(),
        },
        RoomNetwork::All => {
            let mut all: BTreeSet<RoomNid> = reader.published_rooms().await?.into_iter().collect();
            all.extend(reader.service_directories().await?);
            all.into_iter().collect()
        }
        _ => reader.published_rooms().await?,
    })
}
