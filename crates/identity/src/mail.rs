//! Sending mail: a small port, and SMTP behind it.

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};

use crate::{Email, MailConfig, Security};

/// A mail to one person.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// Who gets it.
    pub to: Email,
    /// One line; anything that is not printable is refused.
    pub subject: String,
    /// The text part.
    pub text: String,
    /// The HTML part.
    pub html: String,
    /// When, in milliseconds since 1970.
    pub sent_at: u64,
    /// Unique left part of the message id: letters and digits.
    pub id: String,
}

/// The mail did not go out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MailError {
    /// The relay cannot be reached, or not safely. Worth trying again.
    #[error("mail relay: {0}")]
    Relay(String),
    /// This mail cannot be written: a defect, or a wrong setting.
    #[error("mail: {0}")]
    Unwritable(String),
}

/// Sends mail.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Hands the mail to the relay; when it answers, the relay has it.
    async fn send(&self, mail: Mail) -> Result<(), MailError>;
}

/// Mail over SMTP.
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// What the files named in the configuration hold.
#[derive(Clone, Default)]
pub struct MailSecrets {
    /// The relay's password.
    pub password: Option<String>,
    /// Certificate authority, PEM.
    pub certificate_authority: Option<Vec<u8>>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its text holds the link that proves who reads it.
        f.debug_struct("Mail").field("to", &self.to).field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MailSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailSecrets")
    }
}

impl Smtp {
    /// Prepares the transport; connects to nothing yet.
    pub fn new(config: &MailConfig, secrets: MailSecrets) -> Result<Self, MailError> {
        let unwritable = |error: String| MailError::Unwritable(error);
        let from = config.sender().map_err(|e| unwritable(format!("from {:?}: {e}", config.from)))?;
        let port = config.port.unwrap_or(match config.security {
            Security::Tls => 465,
            Security::Starttls => 587,
            Security::Plain => 25,
        });
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(port)
            .timeout(Some(Duration::from_secs(config.timeout_seconds)))
            .tls(protection(config, &secrets)?);
        if let (Some(user), Some(password)) = (&config.username, secrets.password) {
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self { transport: builder.build(), from })
    }

    fn write(&self, mail: Mail) -> Result<Message, MailError> {
        let unwritable = |error: String| MailError::Unwritable(error);
        if mail.subject.chars().any(char::is_control) || !mail.id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(unwritable("control character in a header".to_owned()));
        }
        let to = mail.to.as_str().parse().map_err(|e| unwritable(format!("address: {e}")))?;
        let id = format!("<{}@{}>", mail.id, self.from.email.domain());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .date(UNIX_EPOCH + Duration::from_millis(mail.sent_at))
            .message_id(Some(id))
            .subject(mail.subject)
            .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
            .map_err(|error| unwritable(error.to_string()))
    }
}

fn protection(config: &MailConfig, secrets: &MailSecrets) -> Result<Tls, MailError> {
    if config.security == Security::Plain {
        return Ok(Tls::None);
    }
    let wrong = |error: lettre::transport::smtp::Error| MailError::Relay(error.to_string());
    let mut parameters = TlsParameters::builder(config.host.clone());
    if let Some(pem) = &secrets.certificate_authority {
        parameters = parameters.add_root_certificate(Certificate::from_pem(pem).map_err(wrong)?);
    }
    let parameters = parameters.build().map_err(wrong)?;
    Ok(match config.security {
        Security::Tls => Tls::Wrapper(parameters),
        Security::Starttls | Security::Plain => Tls::Required(parameters),
    })
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, mail: Mail) -> Result<(), MailError> {
        let message = self.write(mail)?;
        self.transport.send(message).await.map(drop).map_err(|error| MailError::Relay(error.to_string()))
    }
}
