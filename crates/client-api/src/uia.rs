//! User-interactive authentication (client-server API, "User-interactive authentication API") of logged-in users.

use chappe_accounts::{Accounts, Operation, Proof};
use ruma::api::client::uiaa::{AuthData, AuthType};
use serde_json::Value;

use crate::{error::Result, requester::Requester};

/// As [`ask_password`], for what an application service may do as it is (application service API, "Device management"
/// and "Cross-signing"): its users have no passwords.
pub(crate) async fn ask_person(
    accounts: &Accounts,
    requester: &Requester,
    operation: (&str, &str),
    body: &Value,
    auth: Option<&AuthData>,
) -> Result<()> {
    if requester.appservice().is_some() {
        return Ok(());
    }
    ask_password(accounts, requester, operation, body, auth).await
}

/// Asks the requester for the password before an operation: `method` and `path` name it, and the session is bound to `body`.
pub(crate) async fn ask_password(
    accounts: &Accounts,
    requester: &Requester,
    (method, path): (&str, &str),
    body: &Value,
    auth: Option<&AuthData>,
) -> Result<()> {
    let operation = Operation::new(method, path).by(requester.user()).with_body(body);
    let flows = [vec![AuthType::Password]];
    accounts.authorize(&operation, Proof { auth, flows: &flows, email: None, params: None }).await?;
    Ok(())
}
