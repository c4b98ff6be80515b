//! Other servers' directories, as searches here ask them: people (MSC4258), how accounts stand, public rooms.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use chappe_accounts::UserInfo;
use chappe_rooms::PeerError;
use chappe_search::{Directories, PeerPeople};
use http::Method;
use ruma::{OwnedUserId, ServerName, UserId, api::federation::directory::get_public_rooms_filtered};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Network, prompt::Topic};

/// Where people are asked for.
pub(crate) const PEOPLE_PATH: &str = "/_matrix/federation/unstable/org.matrix.msc4258/user_directory/search";
/// Where it is asked how accounts stand; not of the specification.
pub(crate) const INFOS_PATH: &str = "/_matrix/federation/unstable/users/info";
/// The longest answers about people and about rooms, in bytes.
const MAX_PEOPLE: u64 = 256 << 10;
pub(crate) const MAX_ROOMS: u64 = 4 << 20;

#[async_trait]
impl Directories for Network {
    async fn people(
        &self,
        server: &ServerName,
        requester: &UserId,
        term: &str,
        limit: usize,
    ) -> Result<PeerPeople, PeerError> {
        let question = json!({ "requester": requester, "search_term": term, "limit": limit });
        self.promptly(server, Topic::People, self.post(server, PEOPLE_PATH, &question)).await
    }
}

impl Network {
    /// How the accounts of a server's users stand.
    pub(crate) async fn user_infos(
        &self,
        server: &ServerName,
        users: &[OwnedUserId],
    ) -> Result<BTreeMap<OwnedUserId, UserInfo>, PeerError> {
        let question = json!({ "user_ids": users });
        self.promptly(server, Topic::Infos, self.post(server, INFOS_PATH, &question)).await
    }

    /// The public rooms of a server, for a list of those of many.
    pub(crate) async fn listed_rooms(
        &self,
        server: &ServerName,
        request: get_public_rooms_filtered::v1::Request,
    ) -> Result<get_public_rooms_filtered::v1::Response, PeerError> {
        let asked = self.request(server, request, self.brief().up_to(MAX_ROOMS));
        self.promptly(server, Topic::Rooms, asked).await
    }

    /// Asks at an address that no endpoint type knows.
    async fn post<T: DeserializeOwned>(
        &self,
        to: &ServerName,
        path: &str,
        question: &Value,
    ) -> Result<T, PeerError> {
        let http = self.signed(to, Method::POST, path, Bytes::from(question.to_string()))?;
        let answer = self.exchange(to, http, self.brief().up_to(MAX_PEOPLE)).await?;
        serde_json::from_slice(answer.body()).map_err(|error| PeerError::Malformed(error.to_string()))
    }
}
