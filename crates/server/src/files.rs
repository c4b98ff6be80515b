//! What files hold that the configuration names: secrets, templates of mails.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use chappe_admin::SharedSecret;
use chappe_identity::{MailConfig, MailSecrets, Post, Smtp, SsoConfig, Templates};

/// SMTP and templates with what the files hold that the configuration names.
pub(crate) fn post(config: &MailConfig) -> Result<Post> {
    let password = config.password_file.as_ref().map(|file| {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok::<_, anyhow::Error>(text.trim_end_matches(['\r', '\n']).to_owned())
    });
    let authority = config
        .certificate_authority
        .as_ref()
        .map(|file| std::fs::read(file).with_context(|| file.display().to_string()));
    let secrets =
        MailSecrets { password: password.transpose()?, certificate_authority: authority.transpose()? };
    let templates = config.templates.as_deref().map(templates).transpose()?;
    let mailer = Arc::new(Smtp::new(config, secrets).context("`mail`")?);
    Ok(Post { mailer, templates: templates.unwrap_or_default() })
}

/// The mails that an operator wrote.
fn templates(folder: &Path) -> Result<Templates> {
    let place = || format!("`mail.templates`: {}", folder.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(place)? {
        let path = entry.with_context(place)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Notes beside the mails are left alone.
        if path.extension().is_some_and(|kind| kind == "txt" || kind == "html") {
            files.insert(name, std::fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    Templates::new(&files).with_context(place)
}

/// What the files of secrets hold, by the provider's id.
pub(crate) fn provider_secrets(config: &SsoConfig) -> Result<BTreeMap<String, String>> {
    let mut secrets = BTreeMap::new();
    for provider in &config.providers {
        let Some(file) = &provider.client_secret_file else { continue };
        secrets.insert(provider.id.clone(), secret(file)?);
    }
    Ok(secrets)
}

/// What a file of a secret holds.
pub(crate) fn secret(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    ensure!(!secret.is_empty(), "{} is empty", file.display());
    Ok(secret)
}

/// The secret with which scripts make accounts, if there is one.
pub(crate) fn shared_secret(config: &chappe_admin::Config) -> Result<Option<SharedSecret>> {
    let text = match (&config.registration_shared_secret, &config.registration_shared_secret_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
        (None, None) => return Ok(None),
    };
    SharedSecret::new(&text).context("`admin.registration_shared_secret` is empty").map(Some)
}
