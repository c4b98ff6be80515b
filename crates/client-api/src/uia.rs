//! User-interactive authentication (client-server API, "User-interactive authentication API") of logged-in users.

use axum::extract::FromRef;
use chappe_accounts::{Accounts, Operation, Proof};
use chappe_identity::Sso;
use http::StatusCode;
use ruma::{
    UserId,
    api::client::uiaa::{AuthData, AuthType},
};
use serde_json::{Value, json};

use crate::{Api, error::Result, requester::Requester};

/// The stage that users complete on this server's pages, and what it was called before it was specified (MSC4312).
const APPROVAL: [&str; 2] = ["m.oauth", "org.matrix.cross_signing_reset"];

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
