//! New accounts, by the proofs that the configuration asks for: over the client API and on pages by the same rules.

use chappe_accounts::{Accounts, NewUser, Operation, Proof, UserKind};
use chappe_store::identity::Purpose;
use ruma::{
    OwnedUserId,
    api::client::uiaa::{AuthData, AuthType},
};
use serde::Deserialize;

use crate::{Email, Error, IdentityService};

/// The section `[client.registration]`. Everything is off: an operator opens what is meant to be open.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the configuration by itself")]
pub struct Registration {
    /// With an e-mail address that `identity` allows.
    pub email: bool,
    /// With a token that an administrator made. Together with `email`: both are asked for.
    pub token: bool,
    /// By anybody, without any proof: for tests.
    pub open: bool,
    /// Guests.
    pub guests: bool,
}

impl Registration {
    /// Whether anybody at all can sign up.
    pub fn is_possible(&self) -> bool {
        self.email || self.token || self.open
    }

    /// The flows that lead to an account, best first.
    fn flows(&self) -> Vec<Vec<AuthType>> {
        let mut proofs = Vec::new();
        if self.token {
            proofs.push(AuthType::RegistrationToken);
        }
        if self.email {
            proofs.push(AuthType::EmailIdentity);
        }
        let mut flows = Vec::new();
        if !proofs.is_empty() {
            flows.push(proofs);
        }
        if self.open {
            flows.push(vec![AuthType::Dummy]);
        }
        flows
    }
}

/// What somebody who wants an account says.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignUp<'a> {
    /// The name, unless names follow from addresses.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a str>,
    /// Proofs, one at a time.
    pub auth: Option<&'a AuthData>,
    /// Where the request comes from.
    pub address: &'a str,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignUpError {
    /// The address may not be used here.
    #[error(transparent)]
    Identity(#[from] Error),
    /// Accounts say no, or want another proof.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
}

impl IdentityService {
    /// Makes an account once all proofs of a flow are there; until then
    /// [`Authenticate`](chappe_accounts::Error::Authenticate) says which is next.
    pub async fn sign_up(
        &self,
        accounts: &Accounts,
        registration: &Registration,
        wanted: SignUp<'_>,
    ) -> Result<OwnedUserId, SignUpError> {
        let identity = self.identity();
        // Tell at once what can never work, before anybody types an address or waits for a mail.
        let named_by_address = registration.email && identity.names_accounts();
        let name = wanted.username.filter(|_| !named_by_address);
        if let Some(name) = name {
            accounts.check_available(name, UserKind::User).await?;
        }
        if let Some(password) = wanted.password {
            accounts.check_password(password, name.map(str::to_owned).into_iter().collect()).await?;
        }
        // Not bound to the body: clients ask for the flows with an empty request, or name the account last.
        let operation = Operation::new("POST", "/register");
        let (stage, flows) = (identity.stage(Purpose::Registration), registration.flows());
        let proof = Proof {
            auth: wanted.auth,
            flows: &flows,
            email: Some(&stage),
            params: None,
            address: wanted.address,
        };
        let verified = accounts.authorize(&operation, proof).await?;
        let address = verified.email.as_ref().map(|email| email.address.clone());
        let proved = address.as_deref().and_then(|address| Email::parse(address).ok());
        let new = NewUser {
            localpart: name.map(str::to_owned),
            password: wanted.password.map(str::to_owned),
            published: address.is_some() && self.binds_new_accounts(),
            email: address,
            validation: verified.email.map(|email| email.sid),
            registration_token: verified.registration_token,
            ..NewUser::default()
        };
        let user = match proved.filter(|_| named_by_address) {
            // The names follow from the address: the first that is free (profile `agents`).
            Some(email) => identity.naming(&email)?.create(accounts, new).await?,
            None => accounts.create_user(new).await?,
        };
        // What waited for the address finds its way now.
        self.wake();
        Ok(user)
    }
}
