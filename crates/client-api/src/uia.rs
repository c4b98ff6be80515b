//! User-interactive authentication (client-server API, "User-interactive authentication API") of logged-in users.

use axum::extract::{FromRef, FromRequest, Request};
use chappe_accounts::{Accounts, Operation, Proof};
use chappe_identity::Sso;
use chappe_web::{WithBody, body_bytes};
use http::StatusCode;
use ruma::{
    UserId,
    api::{
        IncomingRequest,
        client::uiaa::{AuthData, AuthType},
    },
};
use serde_json::{Value, json};

use crate::{Api, error::Result, requester::Requester};

/// The stage that users complete on this server's pages, and what it was called before it was specified (MSC4312).
const APPROVAL: [&str; 2] = ["m.oauth", "org.matrix.cross_signing_reset"];

/// A request that a person may have to confirm, with its body. Older clients name the user of a password as at a log-in of
/// old, without the `identifier` that endpoint types ask for.
#[derive(Clone, Debug)]
pub(crate) struct Confirmed<T>(pub(crate) T, pub(crate) Value);

impl<T, S> FromRequest<S> for Confirmed<T>
where
    T: IncomingRequest,
    S: Send + Sync,
{
    type Rejection = chappe_web::Error;

    async fn from_request(request: Request, state: &S) -> chappe_web::Result<Self> {
        let (parts, body) = request.into_parts();
        let mut bytes = body_bytes(&parts, body).await?;
        if let Ok(mut body) = serde_json::from_slice::<Value>(&bytes)
            && identify(&mut body)
        {
            bytes = body.to_string().into();
        }
        let request = Request::from_parts(parts, bytes.into());
        let WithBody(request, body) = WithBody::<T>::from_request(request, state).await?;
        Ok(Self(request, body))
    }
}

/// Adds the `identifier` of the user whose password the `auth` of a body holds, where an older client left it out; whether
/// there was one to add.
pub(crate) fn identify(body: &mut Value) -> bool {
    let Some(auth) = body.get_mut("auth").and_then(Value::as_object_mut) else { return false };
    let said = |field: &str| auth.get(field).and_then(Value::as_str);
    let is_named = auth.get("identifier").is_some_and(|identifier| !identifier.is_null());
    if is_named || said("type") != Some("m.login.password") {
        return false;
    }
    let identifier = match (said("user"), said("medium"), said("address")) {
        (Some(user), ..) => json!({ "type": "m.id.user", "user": user }),
        (None, Some(medium), Some(address)) => {
            json!({ "type": "m.id.thirdparty", "medium": medium, "address": address })
        }
        _ => return false,
    };
    auth.insert("identifier".to_owned(), identifier);
    true
}

/// Asks people to prove once more who they are.
#[derive(Clone, Debug)]
pub(crate) struct Uia {
    accounts: Accounts,
    sso: Sso,
}

impl FromRef<Api> for Uia {
    fn from_ref(api: &Api) -> Self {
        Self { accounts: FromRef::from_ref(api), sso: FromRef::from_ref(api) }
    }
}

impl Uia {
    /// As [`Uia::ask`], for what an application service may do as it is (application service API, "Device management"
    /// and "Cross-signing"): its users have no passwords.
    pub(crate) async fn ask_person(
        &self,
        requester: &Requester,
        operation: (&str, &str),
        body: &Value,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        if requester.appservice().is_some() {
            return Ok(());
        }
        self.ask(requester, operation, body, auth).await
    }

    /// Asks for the user's approval on this server's page at `url` before an operation, where the session is one of an
    /// OAuth client (client-server API, "OAuth authentication").
    pub(crate) async fn ask_approval(
        &self,
        requester: &Requester,
        (operation, url): ((&str, &str), &str),
        body: &Value,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        let operation = Operation::new(operation.0, operation.1).by(requester.user()).with_body(body);
        let operation = operation.from_device(requester.device()?);
        let flows = [vec![AuthType::OAuth]];
        let page = json!({ "url": url });
        let params = json!({ APPROVAL[0]: page, APPROVAL[1]: page });
        let proof = Proof { auth, flows: &flows, email: None, params: Some(&params), address: "" };
        let asked = match self.accounts.authorize(&operation, proof).await {
            Err(chappe_accounts::Error::Authenticate(asked)) => asked,
            other => return Ok(other.map(drop)?),
        };
        let mut asked = serde_json::to_value(asked).map_err(chappe_web::Error::internal)?;
        asked["flows"] = APPROVAL.iter().map(|stage| json!({ "stages": [stage] })).collect();
        Err(chappe_web::Error::with_body(StatusCode::UNAUTHORIZED, &asked).into())
    }

    /// Asks the requester for the password, or for a log-in with an identity provider, before an operation: `method` and
    /// `path` name it, and the session is bound to `body`. Sessions of OAuth clients have no such way (client-server
    /// API, "OAuth 2.0 API").
    pub(crate) async fn ask(
        &self,
        requester: &Requester,
        (method, path): (&str, &str),
        body: &Value,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        if requester.oauth {
            let sentence =
                "Sessions of OAuth clients cannot do this: it is done on the account page of this server";
            return Err(chappe_web::Error::forbidden(sentence).into());
        }
        let operation = Operation::new(method, path).by(requester.user()).with_body(body);
        let flows = self.flows(requester.user()).await?;
        let proof = Proof { auth, flows: &flows, email: None, params: None, address: "" };
        self.accounts.authorize(&operation, proof).await?;
        Ok(())
    }

    /// How a user can prove who they are: by what they log in with.
    async fn flows(&self, user: &UserId) -> Result<Vec<Vec<AuthType>>> {
        let mut flows = vec![vec![AuthType::Password]];
        if !self.sso.is_on() || self.sso.providers_of(user).await?.is_empty() {
            return Ok(flows);
        }
        if !self.accounts.has_password(user).await? {
            flows.clear();
        }
        flows.push(vec![AuthType::Sso]);
        Ok(flows)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::identify;

    fn identified(auth: &Value) -> Option<Value> {
        let mut body = json!({ "auth": auth });
        identify(&mut body).then(|| body["auth"]["identifier"].take())
    }

    #[test]
    fn who_is_named_as_of_old_is_identified() {
        let password = |field: Value| {
            let mut auth = json!({ "type": "m.login.password", "password": "x" });
            auth.as_object_mut().unwrap().append(&mut field.as_object().unwrap().clone());
            identified(&auth)
        };
        let by_name = json!({ "type": "m.id.user", "user": "alice" });
        assert_eq!(password(json!({ "user": "alice" })), Some(by_name.clone()));
        assert_eq!(password(json!({ "user": "alice", "identifier": null })), Some(by_name.clone()));
        let by_address = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@x.fr" });
        assert_eq!(password(json!({ "medium": "email", "address": "a@x.fr" })), Some(by_address));
        assert_eq!(password(json!({ "user": "bob", "identifier": by_name })), None);
        assert_eq!(password(json!({ "medium": "email" })), None);
        assert_eq!(password(json!({ "user": 1 })), None);
        assert_eq!(identified(&json!({ "type": "m.login.dummy", "user": "alice" })), None);
        assert_eq!(identified(&json!("alice")), None);
    }
}
