//! Which keys take effect while the server runs, and what a configuration that is read again changes.

use chappe_admin::Changes;
use toml::{Table, Value};

use super::{Config, Error, valid, written::Written};

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// When the configuration is read again.
    AtOnce,
    /// When the server is started the next time.
    NextStart,
    /// It cannot be changed.
    Never,
}

/// Keys, each with all below it that has no line of its own. The head of `deploy/chappe.toml` says the same.
pub(super) const KEYS: &[(&str, When)] = &[
    ("log.level", When::AtOnce),
    ("identity", When::AtOnce),
    ("identity_api", When::AtOnce),
    ("mail", When::AtOnce),
    ("sso", When::AtOnce),
    ("accounts", When::AtOnce),
    ("client", When::AtOnce),
    ("oauth", When::AtOnce),
    ("rooms", When::AtOnce),
    ("delivery", When::AtOnce),
    ("media", When::AtOnce),
    ("scanner", When::AtOnce),
    ("admin.statistics", When::AtOnce),
    ("accounts.password.policy", When::AtOnce),
    ("federation.allow", When::AtOnce),
    ("federation.rates", When::AtOnce),
    ("federation.delegated_name", When::AtOnce),
    ("federation.key_validity", When::AtOnce),
    ("federation.catch_up_after", When::AtOnce),
    ("federation.device_names", When::AtOnce),
    ("public_baseurl", When::NextStart),
    ("listeners", When::NextStart),
    ("log", When::NextStart),
    ("process", When::NextStart),
    ("http", When::NextStart),
    ("outbound", When::NextStart),
    ("livekit", When::NextStart),
    ("search", When::NextStart),
    ("federation", When::NextStart),
    ("appservices", When::NextStart),
    ("admin", When::NextStart),
    ("oauth.enabled", When::NextStart),
    ("accounts.password", When::NextStart),
    ("accounts.guess_mentions", When::NextStart),
    ("accounts.push_encrypted_events", When::NextStart),
    ("accounts.thread_subscriptions", When::NextStart),
    ("media.remote_at_once", When::NextStart),
    ("media.remote_at_once_per_server", When::NextStart),
    ("media.remote_at_once_per_user", When::NextStart),
    ("media.thumbnails_at_once", When::NextStart),
    ("media.thumbnails_at_once_per_user", When::NextStart),
    ("media.uploads_at_once_per_user", When::NextStart),
    ("media.previews.at_once", When::NextStart),
    ("scanner.clamd", When::NextStart),
    ("scanner.command", When::NextStart),
    ("scanner.at_once", When::NextStart),
    ("scanner.verdicts", When::NextStart),
    ("server_name", When::Never),
    ("data_dir", When::Never),
];

/// When a key takes effect; `None`: the table does not say.
pub(super) fn when(key: &str) -> Option<When> {
    let lines = KEYS.iter().filter(|(above, _)| is_within(key, above));
    lines.max_by_key(|(above, _)| above.len()).map(|(_, when)| *when)
}

/// Whether a key is `above` or below it.
fn is_within(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The way to a value through the tables, name by name.
type Path = Vec<String>;

impl Config {
    /// This configuration with what `new` says otherwise, as far as that takes effect while the server runs, and which keys
    /// those are. Where something cannot be without what takes effect at the next start, it waits for that as well.
    pub(crate) fn follow(&self, new: &Self) -> Result<(Self, Changes), Error> {
        let mut changed = Vec::new();
        compare(&self.written.table, &new.written.table, &[], &mut changed);
        let fixed = changed.iter().map(|path| path.join(".")).find(|key| when(key) == Some(When::Never));
        if let Some(key) = fixed {
            return Err(Error::Fixed(key));
        }
        let at_once = |path: &Path| when(&path.join(".")) == Some(When::AtOnce);
        let (mut applied, mut waiting): (Vec<Path>, Vec<Path>) = changed.into_iter().partition(at_once);
        let config = loop {
            let config = self.with(&applied, new)?;
            let problems = valid::problems(&config);
            if problems.is_empty() {
                break config;
            }
            let fits = |path: &Path| !problems.iter().any(|problem| is_within(&path.join("."), &problem.key));
            let (fit, held): (Vec<Path>, Vec<Path>) = applied.into_iter().partition(fits);
            if held.is_empty() {
                let problem = |problem: &valid::Problem| format!("`{}`: {}", problem.key, problem.sentence);
                return Err(Error::Apart(problems.iter().map(problem).collect::<Vec<_>>().join("\n")));
            }
            applied = fit;
            waiting.extend(held);
        };
        let named = |paths: Vec<Path>| {
            let mut keys: Vec<String> = paths.iter().map(|path| path.join(".")).collect();
            keys.sort();
            keys
        };
        Ok((config, Changes { applied: named(applied), waiting: named(waiting) }))
    }

    /// This configuration with what `new` says at these paths.
    fn with(&self, paths: &[Path], new: &Self) -> Result<Self, Error> {
        let mut table = self.written.table.clone();
        for path in paths {
            copy(&mut table, Some(&new.written.table), path);
        }
        let read = table.clone().try_into::<Self>();
        let mut config = read.map_err(|_| Error::Apart("what has changed".to_owned()))?;
        config.written = Written { table, ..new.written.clone() };
        Ok(config)
    }
}

/// Finds the values that differ. A table that is empty is a value: `[rooms.access]` says something.
fn compare(old: &Table, new: &Table, above: &[String], found: &mut Vec<Path>) {
    let nothing = Table::new();
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let path = [above, std::slice::from_ref(name)].concat();
        let (had, has) = (old.get(name), new.get(name));
        match (had.map_or(Some(&nothing), Value::as_table), has.map_or(Some(&nothing), Value::as_table)) {
            _ if had == has => {}
            (Some(old), Some(new)) if !old.is_empty() || !new.is_empty() => compare(old, new, &path, found),
            _ => found.push(path),
        }
    }
}

/// Makes the value at a path what it is in `from`, where tables on the way may be missing.
fn copy(into: &mut Table, from: Option<&Table>, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    let value = from.and_then(|from| from.get(name));
    if rest.is_empty() {
        match value {
            Some(value) => into.insert(name.clone(), value.clone()),
            None => into.remove(name),
        };
        return;
    }
    let inside = into.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(inside) = inside else { return };
    copy(inside, value.and_then(Value::as_table), rest);
    if inside.is_empty() && value.is_none() {
        into.remove(name);
    }
}
