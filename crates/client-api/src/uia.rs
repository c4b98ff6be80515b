//! User-interactive authentication (client-server API, "User-interactive authentication API") of logged-in users.

use axum::extract::FromRef;
use chappe_accounts::{Accounts, Operation, Proof};
use chappe_identity::Sso;
use ruma::{
    UserId,
    api::client::uiaa::{AuthData, AuthType},
};
use serde_json::Value;

use crate::{Api, error::Result, requester::Requester};

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

    /// Asks the requester for the password, or for a log-in with an identity provider, before an operation: `method` and
    /// `path` name it, and the session is bound to `body`.
    pub(crate) async fn ask(
        &self,
        requester: &Requester,
        (method, path): (&str, &str),
        body: &Value,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        let operation = Operation::new(method, path).by(requester.user()).with_body(body);
        let flows = self.flows(requester.user()).await?;
        let proof = Proof { auth, flows: &flows, email: None, params: None };
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
