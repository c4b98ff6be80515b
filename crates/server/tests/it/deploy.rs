//! What deploy/ has administrators, systemd and containers run.

use std::{
    io,
    process::{Command, Output},
};

use chappe_server::Cli;
use clap::{Parser, error::ErrorKind};

const GUIDE: &str = include_str!("../../../../deploy/README.md");
const UNIT: &str = include_str!("../../../../deploy/chappe.service");
const IMAGE: &str = include_str!("../../../../deploy/Containerfile");

/// The words of a command; quotes hold one word each.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().take_while(|word| *word != "#").map(str::to_owned).collect()
}

/// `domains add|remove` names two commands and leaves out what follows them.
fn alternatives(words: &[String]) -> Vec<Vec<String>> {
    match words.split_last() {
        Some((last, first)) if last.contains('|') => {
            last.split('|').map(|verb| [first, &[verb.to_owned(), "--help".to_owned()]].concat()).collect()
        }
        _ => vec![words.to_vec()],
    }
}

#[track_caller]
fn assert_known(words: &[String]) {
    let unquoted = words.iter().map(|word| word.trim_matches('\''));
    if let Err(error) = Cli::try_parse_from(unquoted) {
        // Files that it names are not here.
        assert!(
            matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::ValueValidation),
            "{words:?}: {error}"
        );
    }
}

#[test]
fn the_guide_names_commands_that_there_are() {
    let bare = |line: &'static str| {
        let wrapped = ["runuser -u chappe -- ", "podman exec chappe "];
        wrapped.iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line)
    };
    let commands: Vec<_> =
        GUIDE.lines().map(bare).filter(|line| line.starts_with("chappe ")).map(words).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands.iter().flat_map(|words| alternatives(words)) {
        assert_known(&command);
    }
}

#[test]
fn the_unit_and_the_image_name_commands_that_there_are() {
    let of_unit = UNIT.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once("=/usr/bin/"));
    let of_unit: Vec<_> = of_unit.map(|(_, command)| words(command)).collect();
    assert_eq!(of_unit.len(), 3);
    let of_image = IMAGE.lines().filter_map(|line| line.split_once("CMD ")).map(|(_, list)| {
        let words: Vec<String> = serde_json::from_str(list).unwrap();
        if words[0] == "chappe" { words } else { [vec!["chappe".to_owned()], words].concat() }
    });
    let of_image: Vec<_> = of_image.collect();
    assert_eq!(of_image.len(), 2);
    for command in of_unit.iter().chain(&of_image) {
        assert_known(command);
    }
}

/// Where systemd is installed, it understands every line of the unit.
#[test]
fn systemd_understands_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("chappe.service");
    std::fs::write(&unit, UNIT.replace("/usr/bin/chappe", env!("CARGO_BIN_EXE_chappe"))).unwrap();
    let ran = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let Output { status, stderr, .. } = match ran {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        ran => ran.unwrap(),
    };
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success() && !said.contains("chappe.service"), "{said}");
}
