//! `exchange_third_party_invite`: an invite of an address becomes the invite of the user whom the address is bound to.

use chappe_rules::{Pdu, third_party};
use chappe_store::Membership;
use ruma::{
    OwnedUserId, RoomId, UserId, canonical_json::try_from_json_map, events::StateEventType,
    signatures::to_canonical_json_string_for_signing,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Actor, Error, Result, Rooms, desk::Desk};

/// So many signatures are looked at: an identity server adds one of its own.
const MOST_SIGNATURES: usize = 10;
/// With so many of the room's keys: an identity server gives two, and one of them is named twice.
const MOST_KEYS: usize = 10;

/// An invite of an address, bound to a user meanwhile.
#[derive(Clone, Debug)]
pub struct BoundInvite {
    /// Who invited the address: a user of this server.
    pub sender: OwnedUserId,
    /// Whose address it is now.
    pub invited: OwnedUserId,
    /// What the identity server signed: `mxid`, `token`, `signatures`.
    pub signed: Map<String, Value>,
}

/// What an identity server signs, from the fields that count: it stands in an event that this server signs. If anything
/// else was signed, the signature does not hold any more.
fn rebuilt(signed: &Map<String, Value>) -> Result<Map<String, Value>> {
    let text = |field: &str| signed.get(field).filter(|value| value.is_string());
    let needed = |field: &str| {
        let text = text(field).cloned().map(|value| (field.to_owned(), value));
        text.ok_or_else(|| Error::BadJson(format!("signed.{field} is needed")))
    };
    let mut built = Map::from_iter([needed("mxid")?, needed("token")?]);
    if let Some(sender) = text("sender") {
        built.insert("sender".to_owned(), sender.clone());
    }
    let by_key = |keys: &Value| {
        let texts = keys.as_object()?.iter().filter(|(_, signature)| signature.is_string());
        Some(Value::Object(texts.map(|(key, signature)| (key.clone(), signature.clone())).collect()))
    };
    let servers = signed.get("signatures").and_then(Value::as_object).into_iter().flatten();
    let signatures: Map<String, Value> =
        servers.filter_map(|(server, keys)| Some((server.clone(), by_key(keys)?))).collect();
    if signatures.values().filter_map(Value::as_object).map(Map::len).sum::<usize>() > MOST_SIGNATURES {
        return Err(Error::BadJson("signed has too many signatures".to_owned()));
    }
    built.insert("signatures".to_owned(), Value::Object(signatures));
    Ok(built)
}

/// Whether one of these follows an event.
fn is_later(events: &[Pdu], than: &Pdu) -> bool {
    events.iter().any(|event| event.depth() > than.depth())
}

/// What a room says of an address that is invited.
#[derive(Deserialize)]
struct Invited {
    display_name: String,
}

/// Takes away the signatures that none of the room's keys has made: the rules of the room look no further than the first.
fn keep_right_signatures(asked: &Pdu, signed: &mut Map<String, Value>) -> Result<()> {
    let mut keys = third_party::keys(asked);
    keys.truncate(MOST_KEYS);
    let object = try_from_json_map(signed.clone()).map_err(|error| Error::BadJson(error.to_string()))?;
    let text =
        to_canonical_json_string_for_signing(&object).map_err(|error| Error::BadJson(error.to_string()))?;
    let is_right = |id: &str, signature: &Value| {
        let signature = signature.as_str().filter(|_| id.starts_with("ed25519:"));
        signature.is_some_and(|signature| third_party::is_signature_of(&keys, signature, &text))
    };
    let Some(Value::Object(servers)) = signed.get_mut("signatures") else { return Ok(()) };
    for of_server in servers.values_mut().filter_map(Value::as_object_mut) {
        of_server.retain(|id, signature| is_right(id, signature));
    }
    servers.retain(|_, of_server| of_server.as_object().is_some_and(|left| !left.is_empty()));
    Ok(())
}

impl Rooms {
    /// Has an invite of an address made the actor's own, with the signature of whoever has its key (client-server API,
    /// `third_party_signed` of a join).
    pub async fn redeem_invite(
        &self,
        actor: &Actor,
        room: &RoomId,
        signed: Map<String, Value>,
    ) -> Result<()> {
        let user = |field: &str| {
            let text = signed.get(field).and_then(Value::as_str).unwrap_or_default();
            UserId::parse(text).map_err(|_| Error::BadJson(format!("third_party_signed.{field} is no user")))
        };
        let (sender, invited) = (user("sender")?, user("mxid")?);
        if invited != actor.user {
            return Err(Error::Forbidden("this invitation was signed for somebody else".to_owned()));
        }
        let bound = BoundInvite { sender, invited, signed };
        if bound.sender.server_name() == self.server() {
            return self.exchange_invite(room, bound).await;
        }
        Ok(self.0.peers.exchange_invite(room, bound).await?)
    }

    /// Invites the user in the name of whoever invited the address. Whether there is a signature that is right is for the
    /// rules of the room to say.
    pub async fn exchange_invite(&self, room: &RoomId, bound: BoundInvite) -> Result<()> {
        let BoundInvite { sender, invited, signed } = bound;
        if sender.server_name() != self.server() {
            return Err(Error::Forbidden("the inviting user is not of this server".to_owned()));
        }
        self.check_block(room).await?;
        let mut signed = rebuilt(&signed)?;
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        let desk = Desk::open(&self.0, room).await?;
        if !desk.is_here().await? {
            return Err(Error::NotFound("room"));
        }
        let asked = desk.current(StateEventType::RoomThirdPartyInvite, token).await?;
        let said = asked.as_ref().and_then(Pdu::content_as::<Invited>);
        let (Some(asked), Some(said)) = (asked, said) else {
            return Err(Error::Forbidden("this address was not invited".to_owned()));
        };
        if *asked.sender() != *sender {
            return Err(Error::Forbidden("somebody else invited this address".to_owned()));
        }
        match desk.reader.membership(desk.nid, &invited).await? {
            Some((Membership::Join | Membership::Invite, _)) => return Ok(()),
            Some((Membership::Ban, _)) => return Err(Error::Forbidden("this user is banned".to_owned())),
            // What was signed is good once: it does not undo that the user turned the invite down, left or was put out.
            Some((Membership::Leave, num)) if is_later(&desk.pdus(&[num]).await?, &asked) => {
                return Err(Error::Forbidden("this user has left since the address was invited".to_owned()));
            }
            _ => {}
        }
        drop(desk);
        keep_right_signatures(&asked, &mut signed)?;
        let mut content = self.0.invite_content(&invited, None, false).await?;
        let third_party = json!({ "display_name": said.display_name, "signed": signed });
        content.insert("third_party_invite".to_owned(), third_party);
        let actor = Actor::user(&sender);
        if invited.server_name() == self.server() {
            return self.submit_member(&actor, room, &invited, content).await;
        }
        self.invite_remote(&actor, room, &invited, content).await.map(drop)
    }
}
