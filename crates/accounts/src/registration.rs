//! Registration tokens (`m.login.registration_token`): who may use them, and their administration.

use chappe_store::accounts::RegistrationToken;

use crate::{Accounts, Error, soon};

impl Accounts {
    /// Whether a token would let someone register now (spec: `/register/m.login.registration_token/validity`).
    pub async fn registration_token_valid(&self, token: &str) -> Result<bool, Error> { soon() }
    /// All tokens, with the number of registrations under way.
    pub async fn registration_tokens(&self) -> Result<Vec<(String, RegistrationToken, u64)>, Error> { soon() }
    /// One token, with the number of registrations under way.
    pub async fn registration_token(&self, token: &str) -> Result<Option<(RegistrationToken, u64)>, Error> { soon() }
    /// Makes a token; `None` draws a random one. [`Error::Invalid`] when it exists or has characters beyond `A-Za-z0-9._~-`.
    pub async fn create_registration_token(&self, token: Option<String>, uses_allowed: Option<u64>, expires: Option<u64>) -> Result<(String, RegistrationToken), Error> { soon() }
    /// Changes a token.
    pub async fn update_registration_token(&self, token: &str, change: impl Fn(&mut RegistrationToken) + Send) -> Result<RegistrationToken, Error> { soon() }
    /// Removes a token. [`Error::NotFound`].
    pub async fn delete_registration_token(&self, token: &str) -> Result<(), Error> { soon() }
}
