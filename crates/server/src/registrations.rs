//! The registration files of application services that the configuration names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chappe_appservices::read_registrations;
use chappe_rules::appservice::Registrations;
use chappe_world::Guard;

use crate::config::Config;

/// Reads and checks them all.
pub(crate) fn read(config: &Config) -> Result<Registrations> {
    let mut files = Vec::new();
    for named in &config.appservices.registrations {
        for file in files_of(named).with_context(|| format!("`appservices`: {}", named.display()))? {
            let text = std::fs::read_to_string(&file);
            let text = text.with_context(|| format!("`appservices`: {}", file.display()))?;
            files.push((file.display().to_string(), text));
        }
    }
    let guard = Guard::new(config.outbound.allowed_ranges.clone());
    read_registrations(&files, &config.server_name, &guard).context("`appservices.registrations`")
}

/// A file, or the registrations in a folder by name.
fn files_of(named: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(named)?.is_dir() {
        return Ok(vec![named.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(named)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::config::{Config, DEVELOPMENT, parse};

    fn with(folder: &std::path::Path) -> Config {
        let text =
            format!("{DEVELOPMENT}\n[appservices]\nregistrations = [{:?}]\n", folder.display().to_string());
        parse("test", &text, std::iter::empty()).unwrap()
    }

    fn registration(id: &str) -> String {
        format!(
            "id: {id}\nurl: null\nas_token: a{id}\nhs_token: h{id}\nsender_localpart: {id}\nnamespaces: {{}}\n"
        )
    }

    #[test]
    fn a_folder_is_read_by_name_and_a_mistake_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("b.yaml", registration("two")),
            ("a.yml", registration("one")),
            ("notes.txt", "nothing".to_owned()),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let read_all = || read(&with(folder.path()));
        let services = read_all().unwrap();
        let ids: Vec<&str> = services.iter().map(|service| service.id.as_str()).collect();
        assert_eq!(ids, ["one", "two"]);
        std::fs::write(folder.path().join("c.yaml"), registration("one")).unwrap();
        let problem = format!("{:#}", read_all().unwrap_err());
        assert!(problem.contains("c.yaml: `id` is that of another registration"), "{problem}");
        let missing = read(&with(&folder.path().join("none"))).unwrap_err();
        assert!(format!("{missing:#}").contains("none"), "{missing:#}");
    }
}
