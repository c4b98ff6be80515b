//! The verdict on `m.login.email.identity`, in the form that user-interactive authentication asks for.

use async_trait::async_trait;
use chappe_accounts::EmailStage;
use ruma::api::client::uiaa::ThirdpartyIdCredentials;

use crate::{Error, Identity, Purpose};

/// Judges the stage `m.login.email.identity` of operations of one purpose.
#[derive(Clone, Debug)]
pub struct Stage {
    identity: Identity,
    purpose: Purpose,
}

impl Identity {
    /// The judge for operations of `purpose`.
    pub fn stage(&self, purpose: Purpose) -> Stage {
        Stage { identity: self.clone(), purpose }
    }
}

#[async_trait]
impl EmailStage for Stage {
    async fn validated(
        &self,
        credentials: &ThirdpartyIdCredentials,
    ) -> Result<Option<String>, chappe_accounts::Error> {
        let verdict =
            self.identity.validated(self.purpose, &credentials.sid, &credentials.client_secret).await;
        match verdict {
            Ok(validated) => Ok(Some(validated.address.to_string())),
            Err(Error::NoSession | Error::NotValidated) => Ok(None),
            Err(
                error @ (Error::Denied { .. } | Error::WrongServer { .. } | Error::InvitationMissing { .. }),
            ) => Err(chappe_accounts::Error::AddressDenied(error.to_string())),
            Err(Error::Store(error)) => Err(error.into()),
            Err(error) => Err(chappe_accounts::Error::Invalid(error.to_string())),
        }
    }
}
