//! What application services are asked while somebody waits: users, aliases, third-party networks.
//!
//! Specification: application service API, "Querying" and "Third-party networks".

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chappe_rooms::Queries;
use chappe_rules::appservice::Registration;
use futures_util::future::join_all;
use ruma::{RoomAliasId, UserId};
use serde_json::{Map, Value};

use crate::link::{Ask, Link, segment};

/// What is looked up on a third-party network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThirdParty {
    /// Places, such as channels, with the aliases of their rooms.
    Location,
    /// People, with their user ids here.
    User,
}

impl ThirdParty {
    fn word(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::User => "user",
        }
    }

    /// The field that names what it is here.
    fn key(self) -> &'static str {
        match self {
            Self::Location => "alias",
            Self::User => "userid",
        }
    }
}

#[async_trait]
impl Queries for Link {
    async fn has_user(&self, user: &UserId) -> bool {
        for service in self.services().iter().filter(|service| service.covers_user(user)) {
            if self.exists(service, "users", user.as_str()).await {
                return true;
            }
        }
        false
    }

    async fn has_alias(&self, alias: &RoomAliasId) -> bool {
        for service in self.services().iter().filter(|service| service.covers_alias(alias)) {
            if self.exists(service, "rooms", alias.as_str()).await {
                return true;
            }
        }
        false
    }
}

impl Link {
    async fn exists(&self, service: &Registration, kind: &str, what: &str) -> bool {
        let path = format!("/{kind}/{}", segment(what));
        let ask = Ask::get(path.clone(), path, self.patience());
        match self.question(service, &ask).await {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                tracing::debug!(service = service.id, kind, %error, "an application service does not have it");
                false
            }
            None => false,
        }
    }

    /// What is known of every third-party network, by its name: the answers of all services put together.
    pub async fn protocols(&self) -> BTreeMap<String, Value> {
        let names: BTreeSet<&String> =
            self.services().iter().flat_map(|service| &service.protocols).collect();
        let found = join_all(names.iter().map(|name| self.protocol(name))).await;
        names.into_iter().zip(found).filter_map(|(name, found)| Some((name.clone(), found?))).collect()
    }

    /// What is known of a third-party network; `None` when no service connects it.
    pub async fn protocol(&self, name: &str) -> Option<Value> {
        let asked: Vec<_> =
            self.connecting(name).into_iter().map(|service| self.description(service, name)).collect();
        join_all(asked).await.into_iter().flatten().reduce(put_together)
    }

    async fn description(&self, service: &Registration, name: &str) -> Option<Value> {
        let path = format!("/thirdparty/protocol/{}", segment(name));
        described(service, self.third_party(service, &path, String::new()).await?)
    }

    /// What services find on a network by fields of theirs, such as the name of a channel.
    pub async fn search(
        &self,
        what: ThirdParty,
        protocol: &str,
        fields: &BTreeMap<String, String>,
    ) -> Vec<Value> {
        let path = format!("/thirdparty/{}/{}", what.word(), segment(protocol));
        let fields = fields.iter().filter(|(name, _)| *name != "access_token");
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.find(self.connecting(protocol), what, &path, &query).await
    }

    /// What a room alias or a user id of a service's namespace is on third-party networks.
    pub async fn reverse(&self, what: ThirdParty, id: &str) -> Vec<Value> {
        let path = format!("/thirdparty/{}", what.word());
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair(what.key(), id).finish();
        let covers = |service: &&Registration| match what {
            ThirdParty::Location => <&RoomAliasId>::try_from(id).is_ok_and(|id| service.covers_alias(id)),
            ThirdParty::User => <&UserId>::try_from(id).is_ok_and(|id| service.covers_user(id)),
        };
        let services = self.services().iter().map(|service| &**service).filter(covers).collect();
        self.find(services, what, &path, &query).await
    }

    /// The services that connect a network.
    fn connecting(&self, protocol: &str) -> Vec<&Registration> {
        let connects = |service: &&Registration| service.protocols.iter().any(|name| name == protocol);
        self.services().iter().map(|service| &**service).filter(connects).collect()
    }

    async fn find(
        &self,
        services: Vec<&Registration>,
        what: ThirdParty,
        path: &str,
        query: &str,
    ) -> Vec<Value> {
        let asked: Vec<_> =
            services.into_iter().map(|service| self.third_party(service, path, query.to_owned())).collect();
        let answers = join_all(asked).await.into_iter().flatten();
        let entries = answers.flat_map(|answer| match answer {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        });
        entries.filter(|entry| is_entry(what, entry)).collect()
    }

    async fn third_party(&self, service: &Registration, path: &str, query: String) -> Option<Value> {
        service.url.as_ref()?;
        let old = format!("/_matrix/app/unstable{path}");
        let ask = Ask { query, ..Ask::get(path.to_owned(), old, self.patience()) };
        match self.question(service, &ask).await? {
            Ok(body) => serde_json::from_slice(&body).ok(),
            Err(error) => {
                tracing::info!(service = service.id, %error, "a look-up on a third-party network failed");
                None
            }
        }
    }
}

/// Whether a service said what the specification asks for.
fn is_entry(what: ThirdParty, entry: &Value) -> bool {
    let id = entry[what.key()].as_str();
    let right = match what {
        ThirdParty::Location => id.is_some_and(|id| <&RoomAliasId>::try_from(id).is_ok()),
        ThirdParty::User => id.is_some_and(|id| <&UserId>::try_from(id).is_ok()),
    };
    right && entry["protocol"].is_string() && entry["fields"].is_object()
}

/// A description of a network, if it is one, with names for its instances under which clients can ask for their rooms.
fn described(service: &Registration, mut found: Value) -> Option<Value> {
    let fields: &mut Map<String, Value> = found.as_object_mut()?;
    for list in ["user_fields", "location_fields"] {
        fields.get(list).filter(|value| value.is_array())?;
    }
    let instances = fields.entry("instances").or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?;
    for instance in instances {
        let Some(network) = instance.get("network_id").and_then(Value::as_str) else { continue };
        let name = format!("{}|{network}", service.id);
        instance.as_object_mut()?.insert("instance_id".to_owned(), name.into());
    }
    Some(found)
}

/// Two descriptions of one network: the first, with the instances of both.
fn put_together(mut first: Value, mut second: Value) -> Value {
    let more = second["instances"].as_array_mut().map(std::mem::take).unwrap_or_default();
    if let Some(instances) = first["instances"].as_array_mut() {
        instances.extend(more);
    }
    first
}
