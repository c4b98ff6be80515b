//! What can go wrong, by what the caller can do about it.

use ruma::OwnedUserId;

use crate::{InvalidEmail, InvalidMap, InvalidPattern, InvalidRule, MailError};

/// Why identity says no.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an address: the agent has to type it again. `M_INVALID_PARAM`, 400.
    #[error(transparent)]
    InvalidEmail(#[from] InvalidEmail),
    /// The address is not on the allow-list: the agent has to use another one. `M_THREEPID_DENIED`, 403.
    #[error(
        "L'adresse {address} n'est pas autorisée sur ce serveur : utilisez votre adresse professionnelle, ou demandez \
         l'ouverture de votre domaine. / The address {address} may not be used on this server: use your professional \
         address, or ask for your domain to be opened."
    )]
    Denied {
        /// The address as parsed.
        address: String,
    },
    /// The map sends the address to another server: the agent has to sign up there. `M_THREEPID_DENIED`, 403.
    #[error(
        "Votre adresse mail {address} est associée à un autre serveur. Contactez votre support. / Your e-mail address \
         {address} belongs to another server. Contact your support."
    )]
    WrongServer {
        /// The address as parsed.
        address: String,
    },
    /// The address may be used by those who were invited, and nobody invited it. `M_THREEPID_DENIED`, 403.
    #[error(
        "Vous avez besoin d'une invitation pour accéder à {service}. Les partenaires externes peuvent accéder à {service} \
         uniquement avec une invitation d'un agent public. / You need an invitation to use {service}. External partners \
         can use {service} with an invitation by a public servant only."
    )]
    InvitationMissing {
        /// What the service is called.
        service: String,
    },
    /// An account has this address already: log in instead. `M_THREEPID_IN_USE`, 400.
    #[error("An account with this e-mail address exists already.")]
    InUse,
    /// No account has this address. `M_THREEPID_NOT_FOUND`, 400.
    #[error("No account has this e-mail address.")]
    UnknownAddress,
    /// The link to go on with is not http(s), not of a host that is allowed, or not the one given before.
    /// `M_INVALID_PARAM`, 400.
    #[error("next_link is not allowed: {0}")]
    NextLink(&'static str),
    /// Too many mails to this address or for this client. `M_LIMIT_EXCEEDED`, 429.
    #[error("Too many requests. Try again later.")]
    TooMany {
        /// How long to wait.
        retry_after: std::time::Duration,
    },
    /// No such validation, another secret, or it has expired: begin again. `M_NO_VALID_SESSION`, 404.
    #[error("This validation does not exist or has expired. Please begin again.")]
    NoSession,
    /// The link of the mail has not been confirmed yet. `M_SESSION_NOT_VALIDATED`, 400.
    #[error("The address is not confirmed yet: open the link in the mail.")]
    NotValidated,
    /// The token is not one of those that were mailed. `M_TOKEN_INCORRECT`, 400.
    #[error("This link is not right or has expired.")]
    WrongToken,
    /// This server sends no mail. `M_UNRECOGNIZED`… the caller answers as for any feature that is off, 400.
    #[error("This server does not validate e-mail addresses.")]
    NoMail,
    /// The mail did not go out: try again later. `M_UNKNOWN`, 502.
    #[error("The mail could not be sent. Please try again later.")]
    Mail(#[source] MailError),
    /// The account name that follows from the address would be too long for this server's name.
    #[error("This address is too long for an account name on this server.")]
    NameTooLong,
    /// The address is bound to a user: invite that one. `M_THREEPID_IN_USE`, 400, with `mxid`.
    #[error("This address is bound to a user already.")]
    Bound {
        /// Whose it is.
        user: OwnedUserId,
    },
    /// The address belongs to another homeserver than the user. `M_BINDING_NOT_PERMITTED`, 400.
    #[error("This address may not be bound to a user of that server.")]
    BindingNotPermitted,
    /// Users of that server invite nobody here: the map does not name it, or takes all of its users by invitation.
    /// `M_FORBIDDEN`, 403.
    #[error("Users of your server may not invite by mail here.")]
    MayNotInvite,
    /// The access token of the identity service is missing, unknown or somebody else's. `M_UNAUTHORIZED`, 401 or 403.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The account of this server's user has ended until it is renewed. `ORG_MATRIX_EXPIRED_ACCOUNT`, 403.
    #[error("this account has expired")]
    Expired,
    /// The identity service's policies are not accepted yet. `M_TERMS_NOT_SIGNED`, 403.
    #[error("Please accept the policies of this service first.")]
    TermsNotSigned,
    /// The pepper was turned meanwhile: ask for the new one. `M_INVALID_PEPPER`, 400.
    #[error("Unknown or invalid pepper: it may have been rotated.")]
    InvalidPepper,
    /// A parameter cannot be used. `M_INVALID_PARAM`, 400.
    #[error("{0}")]
    Invalid(&'static str),
    /// The address waits for more invitations than it may. `M_LIMIT_EXCEEDED`, 429.
    #[error("Too many invitations wait for this address.")]
    TooManyInvites,
    /// There is no such thing. `M_NOT_FOUND`, 404.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The identity server that the client named is not one that is talked with. `M_SERVER_NOT_TRUSTED`, 403.
    #[error("This identity server is not trusted here.")]
    NotTrusted,
    /// Another identity server refused: its error code and sentence, 400 or 403.
    #[error("{error}")]
    Elsewhere {
        /// Its code, of those that are passed on.
        errcode: String,
        /// For people.
        error: String,
    },
    /// Another server was not reached, or its answer cannot be used. 502.
    #[error("Another server that is needed was not reached.")]
    Unreachable,
    /// A file is not a map; nothing was changed.
    #[error(transparent)]
    InvalidMap(#[from] InvalidMap),
    /// A pattern cannot be used.
    #[error(transparent)]
    InvalidPattern(#[from] InvalidPattern),
    /// More entries or patterns than a map may have.
    #[error("the map would have more than 20,000 entries or 500 patterns")]
    MapTooLarge,
    /// A line of an import is wrong; nothing was imported.
    #[error("line {line}: {error}")]
    InvalidImport {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: InvalidRule,
    },
    /// Every server may take part, so that there is no list to change.
    #[error(
        "federation is open to every server: write `federation.allow = []` into the configuration to close it"
    )]
    OpenFederation,
    /// The configuration names this server: it has to be taken out there.
    #[error("{0} is in `federation.allow` of the configuration: take it out there")]
    Configured(String),
    /// Neither a server name nor `*.` and a domain.
    #[error(
        "{0:?} is not a server: write a server name (agent.example.gouv.fr) or all under a domain (*.example.gouv.fr)"
    )]
    NotAServer(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] chappe_store::Error),
}
