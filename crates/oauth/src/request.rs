//! Authorization requests (client-server API, "Authorisation code flow"; RFC 6749, section 4.1.1).

use crate::{
    OAuth,
    clients::Registered,
    error::{Error, Result},
    fields::Fields,
    metadata::AUTHORIZATION_CODE,
    pkce,
    redirect::{self, Mode},
    scope::Scope,
};

/// A request that a user can be asked about.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) client: Registered,
    pub(crate) back: Back,
    pub(crate) scope: Scope,
    pub(crate) challenge: [u8; 32],
}

/// Where the answer goes, checked.
#[derive(Clone, Debug)]
pub(crate) struct Back {
    pub(crate) redirect_uri: String,
    mode: Mode,
    state: Option<String>,
    issuer: String,
}

/// A request that no user is asked about.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The client or its redirect URI is wrong: nothing is sent anywhere.
    Here(Error),
    /// Anything else: the client may be told, once the user has seen where that leads.
    Back(Error, Box<Back>),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl Back {
    /// The address of an answer, with the state of the request and who answers (RFC 9207).
    pub(crate) fn to(&self, name: &str, value: &str) -> String {
        let mut parameters = vec![(name, value)];
        parameters.extend(self.state.as_deref().map(|state| ("state", state)));
        parameters.push(("iss", &self.issuer));
        redirect::with(&self.redirect_uri, self.mode, &parameters)
    }

    /// The address of a refusal.
    pub(crate) fn refusal(&self, error: &Error) -> String {
        self.to("error", error.code())
    }
}

impl OAuth {
    /// Judges a request.
    pub(crate) async fn authorization(&self, fields: &Fields) -> Result<Authorization, Refused> {
        let client = self.client(fields.need("client_id")?).await?;
        let asked = fields.need("redirect_uri")?;
        if !client.metadata.redirect_uris.iter().any(|registered| redirect::is_same(registered, asked)) {
            return Err(Error::request("the redirect_uri is not one that the client registered").into());
        }
        let mode = match fields.get("response_mode") {
            None | Some("query") => Some(Mode::Query),
            Some("fragment") => Some(Mode::Fragment),
            Some(_) => None,
        };
        let back = Back {
            redirect_uri: asked.to_owned(),
            mode: mode.unwrap_or(Mode::Query),
            state: fields.get("state").map(str::to_owned),
            issuer: self.issuer(),
        };
        let judged = match mode {
            Some(_) => judge(&client, fields),
            None => Err(Error::request("response_mode is query or fragment")),
        };
        match judged {
            Ok((scope, challenge)) => Ok(Authorization { client, back, scope, challenge }),
            Err(error) => Err(Refused::Back(error, Box::new(back))),
        }
    }
}

fn judge(client: &Registered, fields: &Fields) -> Result<(Scope, [u8; 32])> {
    if fields.need("response_type")? != "code" {
        return Err(Error::UnsupportedResponseType);
    }
    if !client.metadata.may(AUTHORIZATION_CODE) {
        return Err(Error::UnauthorizedClient);
    }
    if fields.get("request").or(fields.get("request_uri")).is_some() {
        return Err(Error::request("requests inside requests are not supported"));
    }
    let challenge = pkce::challenge(fields.need("code_challenge")?, fields.get("code_challenge_method"))?;
    let scope = Scope::parse(fields.get("scope").unwrap_or_default())?;
    if fields.get("prompt") == Some("none") {
        return Err(Error::InteractionRequired);
    }
    Ok((scope, challenge))
}
