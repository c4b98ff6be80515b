//! Validations of addresses: asked for, mailed, confirmed, used once.

use std::net::IpAddr;

use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts::{FormerOwners, Passwords},
    identity::{Purpose, Validation, Validations, ValidationsByExpiry, ValidationsBySecret},
};
use ring::digest::{SHA256, digest};
use ruma::{ClientSecret, OwnedSessionId, SessionId};

use crate::{
    Email, Error, Identity, Language, Mail,
    texts::{self, Letter, Occasion, Written},
};

/// How often an operation starts again when another writer was first.
const TRIES: usize = 20;
/// Mails of one session; also the number of tokens that are good at a time.
const MAILS: usize = 5;
/// Wrong tokens after which a session is dead.
const FAILURES: u32 = 10;
/// Expired sessions cleaned up when one is made.
const SWEPT: usize = 20;
/// Longest `next_link`, in bytes.
const MAX_LINK: usize = 2000;

/// What a client sends to have an address validated.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The address as typed.
    pub address: &'a str,
    /// The client's secret.
    pub client_secret: &'a ClientSecret,
    /// Higher than the last one to have another mail sent; from 1.
    pub send_attempt: u64,
    /// Where to go on after confirming.
    pub next_link: Option<&'a str>,
    /// Where the request comes from.
    pub ip: Option<IpAddr>,
    /// The language the client asks for.
    pub language: Option<Language>,
}

/// A validation that the bearer of the mail has opened but not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The address.
    pub address: Email,
    /// What for.
    pub purpose: Purpose,
    /// Whether it opens the closed account again that had the address.
    pub reopens: bool,
}

/// A validation that was just confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The address.
    pub address: Email,
    /// Where the browser may go on.
    pub next_link: Option<String>,
}

/// Proof that whoever holds the session reads the mail of the address. It is good for one thing, which uses it up.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The address.
    pub address: Email,
    /// When it was validated, in milliseconds since 1970.
    pub validated_at: u64,
    /// The id of the validation, to be used up together with what is done.
    pub sid: OwnedSessionId,
}

impl Identity {
    /// Begins a validation, or goes on with the one of the same secret, and mails a link if the attempt is new.
    ///
    /// Implements `requestToken` of registration, password reset and 3PID management (client-server API
    /// §Account registration and management). What cannot become an account gets no mail.
    pub async fn request_token(
        &self,
        purpose: Purpose,
        request: TokenRequest<'_>,
    ) -> Result<OwnedSessionId, Error> {
        let address = Email::parse(request.address)?;
        if !self.sends_mail() {
            return Err(Error::NoMail);
        }
        let config = self.config();
        let next_link = request.next_link.filter(|link| !link.is_empty());
        if let Some(link) = next_link {
            self.check_next_link(link)?;
        }
        if let Some(ip) = request.ip {
            let wait = |retry_after| Error::TooMany { retry_after };
            self.inner.per_ip.take(network(ip), config.mails_per_ip, self.inner.world.now()).map_err(wait)?;
        }
        let hides = config.hide_known_addresses;
        let occasion = self.occasion(purpose, &address, hides).await?;
        let secret = hash(&[request.client_secret.as_str()]);
        let (sid, Json(validation)) = self.open(purpose, &address, secret, next_link).await?;
        let is_new = request.send_attempt > validation.sent_attempt;
        if is_new || hides {
            // Counted whether there is a mail or not, and whether it goes out: who is refused must not tell who has an
            // account.
            self.take_address(&address)?;
        }
        if is_new {
            let language = request.language.unwrap_or(config.language);
            let sent = |validation: &mut Validation| validation.sent_attempt = request.send_attempt;
            if hides {
                self.change(&sid, sent).await?;
                if let Some(occasion) = occasion {
                    let attempts = (validation.sent_attempt, request.send_attempt);
                    self.mail_later(sid.clone(), attempts, address, (occasion, language));
                }
            } else if let Some(occasion) = occasion {
                self.mail(&sid, &address, occasion, language).await?;
                self.change(&sid, sent).await?;
            }
        }
        OwnedSessionId::try_from(sid).map_err(|_| chappe_store::Error::Corrupt("session id").into())
    }

    /// What the mail to `address` is about; `None` for no mail at all although the client is told nothing. `hides` says whether
    /// it is kept secret who has an account.
    async fn occasion(
        &self,
        purpose: Purpose,
        address: &Email,
        hides: bool,
    ) -> Result<Option<Occasion>, Error> {
        if needs_leave(purpose) {
            self.check_allowed(address).await?;
        }
        let known = self.owner(address).await?.is_some();
        match (purpose, known) {
            (Purpose::Registration, false) if self.reopens(address).await? => Ok(Some(Occasion::Reopen)),
            (Purpose::Registration | Purpose::AddToAccount, false)
            | (Purpose::PasswordReset, true)
            | (Purpose::Bind, _) => Ok(Some(Occasion::Confirm(purpose))),
            (Purpose::Registration | Purpose::AddToAccount, true) if hides => {
                Ok(Some(Occasion::AlreadyRegistered))
            }
            (Purpose::Registration | Purpose::AddToAccount, true) => Err(Error::InUse),
            (Purpose::PasswordReset, false) if hides => Ok(None),
            (Purpose::PasswordReset, false) => Err(Error::UnknownAddress),
        }
    }

    /// Whether signing up with an address opens a closed account again.
    async fn reopens(&self, address: &Email) -> Result<bool, Error> {
        let key = ("email".to_owned(), address.as_str().to_owned());
        Ok(self.names_accounts() && self.inner.store.read().get::<FormerOwners>(&key).await?.is_some())
    }

    fn check_next_link(&self, link: &str) -> Result<(), Error> {
        if link.len() > MAX_LINK || link.chars().any(char::is_control) {
            return Err(Error::NextLink("it is too long or not printable"));
        }
        let url = url::Url::parse(link).map_err(|_| Error::NextLink("it is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(Error::NextLink("only plain http and https links are"));
        }
        let host = url.host_str().ok_or(Error::NextLink("it has no host"))?;
        let own = url::Url::parse(&self.inner.site.public_baseurl).ok();
        let is_own = own.is_some_and(|own| own.host_str() == Some(host));
        let listed = self.config().next_link_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        if is_own || listed {
            Ok(())
        } else {
            Err(Error::NextLink("its host is not listed in next_link_hosts"))
        }
    }

    /// The live session of this secret, or a new one.
    async fn open(
        &self,
        purpose: Purpose,
        address: &Email,
        secret: [u8; 32],
        next_link: Option<&str>,
    ) -> Result<(String, Json<Validation>), Error> {
        let key = session_key(purpose, address.as_str(), &secret);
        let now = self.inner.world.now();
        let password = self.password_of(purpose, address).await?;
        for _ in 0..TRIES {
            let reader = self.inner.store.read();
            let known = reader.get::<ValidationsBySecret>(&key).await?;
            if let Some(sid) = &known
                && let Some(found) = reader.get::<Validations>(sid).await?
                && found.0.expires_at > now
                && replaces(&found.0, password)
            {
                if found.0.next_link.as_deref() != next_link {
                    return Err(Error::NextLink("it differs from the one given before"));
                }
                return Ok((sid.clone(), found));
            }
            let mut tx = Tx::default();
            sweep(&reader, &mut tx, now).await?;
            let sid = self.inner.world.token(32);
            let validation = Json(Validation {
                address: address.as_str().to_owned(),
                purpose,
                secret,
                sent_attempt: 0,
                tokens: Vec::new(),
                next_link: next_link.map(str::to_owned),
                expires_at: now + u64::from(self.config().validation_hours) * 3_600_000,
                validated: false,
                validated_at: None,
                failures: 0,
                password,
            });
            tx.expect::<ValidationsBySecret>(&key, known.as_ref()).put::<ValidationsBySecret>(&key, &sid);
            tx.put::<Validations>(&sid, &validation);
            tx.put::<ValidationsByExpiry>(&(validation.0.expires_at, sid.clone()), &key.to_vec());
            match self.inner.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok((sid, validation)),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Mails while the client has its answer already: how long that takes tells nothing. A mail that does not go out is in
    /// the log, and the same attempt has it sent once more.
    fn mail_later(
        &self,
        sid: String,
        (before, attempt): (u64, u64),
        address: Email,
        (occasion, language): (Occasion, Language),
    ) {
        let identity = self.clone();
        self.inner.world.spawn("mail", async move {
            let Err(error) = identity.mail(&sid, &address, occasion, language).await else { return };
            tracing::warn!(%error, "a validation goes without its mail");
            let unsent = |validation: &mut Validation| {
                if validation.sent_attempt == attempt {
                    validation.sent_attempt = before;
                }
            };
            if let Err(error) = identity.change(&sid, unsent).await {
                tracing::warn!(%error, "it is not noted that a mail did not go out");
            }
        });
    }

    /// What a new password replaces: the hash of the hash of the old one, of nothing if there is none.
    async fn password_of(&self, purpose: Purpose, address: &Email) -> Result<Option<[u8; 32]>, Error> {
        if purpose != Purpose::PasswordReset {
            return Ok(None);
        }
        let Some(user) = self.owner(address).await? else { return Ok(None) };
        let password = self.inner.store.read().get::<Passwords>(&user).await?;
        Ok(Some(sha256(password.unwrap_or_default().as_bytes())))
    }

    /// Makes a token good for the session, then mails it.
    async fn mail(
        &self,
        sid: &str,
        address: &Email,
        occasion: Occasion,
        language: Language,
    ) -> Result<(), Error> {
        let link = match occasion {
            Occasion::AlreadyRegistered | Occasion::Invite | Occasion::Ending => None,
            Occasion::Confirm(_) | Occasion::Reopen => {
                let token = self.inner.world.token(32);
                self.change(sid, |validation| {
                    let spare = (validation.tokens.len() + 1).saturating_sub(MAILS);
                    validation.tokens.drain(..spare);
                    validation.tokens.push(hash(&[&token]));
                })
                .await?;
                Some(self.link(occasion, (sid, &token), language))
            }
        };
        let written = self.inner.templates.get().write(&Letter {
            occasion,
            language,
            service: &self.service_name(),
            to: address,
            link: link.as_deref().unwrap_or_default(),
            inviter: "",
            room: "",
            ending: None,
        });
        self.post(address, written).await
    }

    /// Counts a mail to an address.
    pub(crate) fn take_address(&self, address: &Email) -> Result<(), Error> {
        let wait = |retry_after| Error::TooMany { retry_after };
        let most = self.config().mails_per_address;
        self.inner.per_address.take(address.clone(), most, self.inner.world.now()).map_err(wait)
    }

    /// Hands a mail to the relay.
    pub(crate) async fn post(&self, to: &Email, written: Written) -> Result<(), Error> {
        let Some(mailer) = &*self.inner.mailer.get() else { return Err(Error::NoMail) };
        let mail = Mail {
            to: to.clone(),
            subject: written.subject,
            text: written.text,
            html: written.html,
            sent_at: self.inner.world.now(),
            id: self.inner.world.token(24),
        };
        mailer.send(mail).await.map_err(|error| {
            tracing::warn!(%error, "mail not sent");
            Error::Mail(error)
        })
    }

    fn link(&self, occasion: Occasion, (sid, token): (&str, &str), language: Language) -> String {
        let site = self.inner.site.public_baseurl.trim_end_matches('/');
        let path = match occasion {
            Occasion::Confirm(Purpose::Bind) => crate::SERVICE_CONFIRM_PATH,
            _ => crate::CONFIRM_PATH,
        };
        format!("{site}{path}?sid={sid}&token={token}&lang={}", texts::code(language))
    }

    /// What the link of a mail is about, for the page with the button. Changes nothing but counts wrong tokens.
    pub async fn pending(&self, sid: &str, token: &str) -> Result<Pending, Error> {
        let Json(validation) = self.with_token(sid, token).await?;
        let (address, purpose) = (parsed(&validation.address)?, validation.purpose);
        let reopens = purpose == Purpose::Registration && self.reopens(&address).await?;
        Ok(Pending { address, purpose, reopens })
    }

    /// Confirms the address with a token that was mailed to it. Doing it again is fine.
    pub async fn confirm(&self, sid: &str, token: &str) -> Result<Confirmed, Error> {
        let Json(validation) = self.with_token(sid, token).await?;
        if !validation.validated {
            let now = self.inner.world.now();
            self.change(sid, |validation| {
                validation.validated = true;
                validation.validated_at.get_or_insert(now);
            })
            .await?;
        }
        Ok(Confirmed { address: parsed(&validation.address)?, next_link: validation.next_link })
    }

    /// The same for a client that says its secret as well (`submitToken`).
    pub async fn submit(
        &self,
        sid: &SessionId,
        client_secret: &ClientSecret,
        token: &str,
    ) -> Result<Confirmed, Error> {
        let Json(validation) = self.live(sid.as_str()).await?;
        let said = hash(&[client_secret.as_str()]);
        if validation.purpose != Purpose::Bind || said != validation.secret {
            return Err(Error::NoSession);
        }
        self.confirm(sid.as_str(), token).await
    }

    /// The live session if `token` is one of its own.
    async fn with_token(&self, sid: &str, token: &str) -> Result<Json<Validation>, Error> {
        let found = self.live(sid).await?;
        if found.0.tokens.contains(&hash(&[token])) {
            return Ok(found);
        }
        self.change(sid, |validation| validation.failures += 1).await?;
        Err(Error::WrongToken)
    }

    async fn live(&self, sid: &str) -> Result<Json<Validation>, Error> {
        let found = self.inner.store.read().get::<Validations>(&sid.to_owned()).await?;
        let alive = |found: &Json<Validation>| {
            found.0.expires_at > self.inner.world.now() && found.0.failures < FAILURES
        };
        found.filter(alive).ok_or(Error::NoSession)
    }

    /// The verdict on `m.login.email.identity` and on any request that names a session: the address, if it is
    /// validated for `purpose` and may still be used.
    pub async fn validated(
        &self,
        purpose: Purpose,
        sid: &SessionId,
        client_secret: &ClientSecret,
    ) -> Result<Validated, Error> {
        let record = self.live(sid.as_str()).await?;
        let said = hash(&[client_secret.as_str()]);
        if record.0.secret != said || record.0.purpose != purpose {
            return Err(Error::NoSession);
        }
        if !record.0.validated {
            return Err(Error::NotValidated);
        }
        let address = parsed(&record.0.address)?;
        if needs_leave(purpose) {
            self.check_allowed(&address).await?;
        }
        if !replaces(&record.0, self.password_of(purpose, &address).await?) {
            return Err(Error::NoSession);
        }
        let validated_at = record.0.validated_at.unwrap_or_default();
        Ok(Validated { address, validated_at, sid: sid.to_owned() })
    }

    async fn change(&self, sid: &str, edit: impl Fn(&mut Validation)) -> Result<(), Error> {
        let sid = sid.to_owned();
        for _ in 0..TRIES {
            let found = self.inner.store.read().get::<Validations>(&sid).await?.ok_or(Error::NoSession)?;
            let mut changed = found.clone();
            edit(&mut changed.0);
            let mut tx = Tx::default();
            tx.expect::<Validations>(&sid, Some(&found)).put::<Validations>(&sid, &changed);
            match self.inner.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }
}

/// Removes some sessions that have expired.
async fn sweep(reader: &Reader<'_>, tx: &mut Tx, now: u64) -> Result<(), Error> {
    let rows = reader.scan::<ValidationsByExpiry>(&(), Direction::Forward, SWEPT).await?;
    for ((expires_at, sid), key) in rows.into_iter().take_while(|((at, _), _)| *at <= now) {
        let key: [u8; 32] =
            key.try_into().map_err(|_| chappe_store::Error::Corrupt("key of a validation"))?;
        let current = reader.get::<ValidationsBySecret>(&key).await?;
        if current.as_ref() == Some(&sid) {
            tx.expect::<ValidationsBySecret>(&key, current.as_ref()).delete::<ValidationsBySecret>(&key);
        }
        tx.delete::<ValidationsByExpiry>(&(expires_at, sid.clone())).delete::<Validations>(&sid);
    }
    Ok(())
}

/// Whether the password is still the one that was to be replaced; older sessions do not tell.
fn replaces(validation: &Validation, password: Option<[u8; 32]>) -> bool {
    validation.password.is_none_or(|noted| Some(noted) == password)
}

/// Whether an address must be one that may be used here.
fn needs_leave(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Registration | Purpose::AddToAccount)
}

fn parsed(address: &str) -> Result<Email, Error> {
    Email::parse(address).map_err(|_| chappe_store::Error::Corrupt("validated address").into())
}

fn session_key(purpose: Purpose, address: &str, secret: &[u8; 32]) -> [u8; 32] {
    let purpose = match purpose {
        Purpose::Registration => "registration",
        Purpose::PasswordReset => "password_reset",
        Purpose::AddToAccount => "add_to_account",
        Purpose::Bind => "bind",
    };
    let mut bytes = [purpose, address].join("\0").into_bytes();
    bytes.push(0);
    bytes.extend_from_slice(secret);
    sha256(&bytes)
}

fn hash(parts: &[&str]) -> [u8; 32] {
    sha256(parts.join("\0").as_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// What is counted as one client: an IPv4 address, or the /64 of an IPv6 address.
fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => u64::try_from(u128::from(ip) >> 64).unwrap_or_default() | 1 << 63,
    }
}
