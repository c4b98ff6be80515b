//! Tests of the configuration.

use super::{
    Api, Config, EXAMPLE, Error, LogFormat,
    live::{KEYS, When, when},
    parse,
};

const SMALL: &str = r#"server_name = "hs1"
data_dir = "/tmp/x"
public_baseurl = "http://127.0.0.1:8008"
[[listeners]]
port = 8008
apis = ["client", "federation"]
"#;

fn with(text: &str, env: &[(&str, &str)]) -> Result<Config, Error> {
    parse("chappe.toml", text, env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn sentence(text: &str, env: &[(&str, &str)]) -> String {
    with(text, env).expect_err("wrong on purpose").to_string()
}

#[test]
fn the_example_is_right() {
    let config = with(EXAMPLE, &[]).unwrap();
    assert_eq!(config.listeners.len(), 3);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn the_development_configuration_is_right_and_stays_on_this_machine() {
    let config = with(super::DEVELOPMENT, &[]).unwrap();
    assert!(config.listeners.iter().all(|listener| listener.address.is_loopback()));
    assert_eq!(config.federation.allow.as_deref(), Some(&[][..]));
}

#[test]
fn a_small_file_is_enough() {
    let config = with(SMALL, &[]).unwrap();
    assert_eq!(config.server_name, "hs1");
    assert!(config.listeners[0].apis.contains(&Api::Federation));
    assert!(config.mail.is_none());
}

#[test]
fn the_environment_overrides_and_completes() {
    let text = "data_dir = \"/tmp/x\"\npublic_baseurl = \"http://a.fr\"\n[[listeners]]\nport = 1\napis = [\"client\"]\n[log]\nlevel=\"warn\"";
    let env = [
        ("CHAPPE__SERVER_NAME", "hs2"),
        ("CHAPPE__LOG__LEVEL", "debug"),
        ("CHAPPE__LISTENERS__0__PORT", "8080"),
        ("CHAPPE__IDENTITY__MAILS_PER_IP", "7"),
        ("CHAPPE__OUTBOUND__ALLOWED_RANGES", "[\"127.0.0.0/8\"]"),
        ("PATH", "/bin"),
    ];
    let config = with(text, &env).unwrap();
    assert_eq!((config.server_name.as_str(), config.log.level.as_str()), ("hs2", "debug"));
    assert_eq!((config.listeners[0].port, config.identity.mails_per_ip), (8080, 7));
    assert_eq!(config.outbound.allowed_ranges.len(), 1);
}

#[test]
fn errors_name_the_file_the_line_and_the_key() {
    let text = format!("{SMALL}[log]\nlevle = \"info\"\n");
    let said = sentence(&text, &[]);
    assert!(said.starts_with("chappe.toml, line 8: `log.levle`: unknown field"), "{said}");
    for (right, wrong, line, key) in [
        ("port = 8008", "port = \"http\"", 5, "listeners.0.port"),
        ("\"federation\"", "\"fedration\"", 6, "listeners.0.apis.1"),
        ("\"federation\"", "\"idenity\"", 6, "listeners.0.apis.1"),
        ("\"hs1\"", "\"hs 1\"", 1, "server_name"),
        ("http://127.0.0.1:8008", "matrix", 3, "public_baseurl"),
        ("[\"client\", \"federation\"]", "[]", 6, "listeners.0.apis"),
    ] {
        let said = sentence(&SMALL.replace(right, wrong), &[]);
        assert!(said.contains(&format!("chappe.toml, line {line}: `{key}`: ")), "{said}");
    }
    for (section, key) in [
        ("log", "level = \"a=b=c\""),
        ("rooms", "default_version = \"13\""),
        ("process", "max_connections = 0"),
        ("client.rates", "message = { per_second = -1.0, burst = 1 }"),
        ("outbound", "allowed_ranges = [\"10.0.0.0/99\"]"),
        ("federation", "allow = [\"https://x.fr\"]"),
        ("federation", "pinned_keys = { \"a.fr\" = { \"ed25519:1\" = \"AAAA\" } }"),
        ("federation.network", "name = \"a.fr\"\ntrust_roots = {}"),
        ("accounts.password", "passes = 0"),
        ("mail", "host = \"h\"\nfrom = \"nobody\""),
        ("client.registration", "email = true"),
        ("admin", "registration_shared_secret = \" \""),
        ("media.previews", "denied_hosts = [\"a.fr\", \"https://b.fr\"]"),
        ("media.previews", "keep_days = 0"),
        ("media", "fetch_without_login = true"),
        ("admin", "registration_shared_secret = \"nowhere to use it\""),
    ] {
        let said = sentence(&format!("{SMALL}[{section}]\n{key}\n"), &[]);
        let last = section.rsplit('.').next().unwrap();
        assert!(said.contains("chappe.toml, line ") && said.contains(last), "{said}");
    }
    let text = SMALL.replace("port = 8008", "port = ");
    assert!(sentence(&text, &[]).contains("chappe.toml, line 5"));
    let text = SMALL.replace("server_name = \"hs1\"\n", "");
    assert!(sentence(&text, &[]).contains("server_name"));
}

#[test]
fn errors_of_the_environment_name_the_variable() {
    let said = sentence(SMALL, &[("CHAPPE__PROCESS__SHUTDOWN_SECONDS", "soon")]);
    assert!(said.starts_with("environment variable CHAPPE__PROCESS__SHUTDOWN_SECONDS: "), "{said}");
    let said = sentence(SMALL, &[("CHAPPE__PROCESS__SHUTDOWN", "1")]);
    assert!(
        said.starts_with("environment variable CHAPPE__PROCESS__SHUTDOWN: ")
            && said.contains("unknown field"),
        "{said}"
    );
    let said = sentence(SMALL, &[("CHAPPE__SERVER_NAME__X", "1")]);
    assert!(said.starts_with("environment variable CHAPPE__SERVER_NAME__X: "), "{said}");
}

#[test]
fn all_inconsistencies_are_named_at_once() {
    let text = SMALL.replace("http://127.0.0.1:8008", "matrix").replace("[\"client\", \"federation\"]", "[]");
    let said = sentence(&text, &[]);
    assert!(
        said.contains("line 3: `public_baseurl`") && said.contains("line 6: `listeners.0.apis`"),
        "{said}"
    );
    let said = sentence(SMALL, &[("CHAPPE__PROCESS__SHUTDOWN_SECONDS", "0")]);
    assert!(
        said.starts_with("environment variable CHAPPE__PROCESS__SHUTDOWN_SECONDS: `process.shut"),
        "{said}"
    );
    let said = sentence(SMALL, &[("CHAPPE__DELIVERY__TO_DEVICE_LIMIT", "0")]);
    assert!(said.contains("`delivery.to_device_limit`"), "{said}");
    let both = "[scanner]\nclamd = \"/a\"\ncommand = [\"/b\"]\nallowed_mimetypes = [\"c\"]\nblocked_mimetypes = [\"d\"]\n";
    let said = sentence(&format!("{SMALL}{both}"), &[]);
    assert!(said.contains("`scanner.command`") && said.contains("`scanner.blocked_mimetypes`"), "{said}");
    for (section, key) in [
        ("[scanner]\nenforce = true\n", "scanner.enforce"),
        ("[scanner]\nclamd = \"clamd\"\n", "scanner.clamd"),
        ("[rooms.retention]\nmaximum_days = 30\ndefault_days = 31\n", "rooms.retention.default_days"),
        ("[rooms.retention]\nminimum_days = 7\ndefault_days = 1\n", "rooms.retention.default_days"),
        ("[rooms.retention]\nmaximum_days = 30\nminimum_days = 31\n", "rooms.retention.minimum_days"),
        ("[livekit]\nurl = \"https://a.fr\"\napi_key = \"k\"\napi_secret_file = \"/s\"\n", "livekit.url"),
    ] {
        let said = sentence(&format!("{SMALL}{section}"), &[]);
        assert!(said.contains(&format!("`{key}`")), "{said}");
    }
}

/// The example with everything that it comments out; without what it calls an example if `examples` is false.
fn uncommented(examples: bool) -> String {
    let line = |line: &'static str| {
        let Some(rest) = line.strip_prefix("# ") else { return line };
        let first = rest.split([' ', '=']).next().unwrap();
        let is_key = rest.contains(" = ") && first.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_example = rest.contains("# example");
        let is_section = [
            "[client.turn]",
            "[livekit]",
            "[rooms.notices]",
            "[rooms.access]",
            "[rooms.access.domains]",
            "[rooms.policy_server]",
            "[rooms.retention]",
            "[[sso.providers]]",
            "[sso.providers.accounts]",
        ]
        .iter()
        .any(|section| rest.starts_with(section));
        let wanted = (is_key || is_section) && (examples || !is_example);
        if wanted { rest } else { line }
    };
    EXAMPLE.lines().map(line).fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn what_the_example_comments_out_is_the_default() {
    let (written, mut whole) = (with(EXAMPLE, &[]).unwrap(), with(&uncommented(false), &[]).unwrap());
    let port = whole.mail.as_mut().and_then(|mail| mail.port.take());
    assert_eq!(port, Some(587), "the default depends on `security`");
    let (written, whole) = (format!("{written:#?}"), format!("{whole:#?}"));
    for (default, commented) in written.lines().zip(whole.lines()) {
        assert_eq!(default, commented);
    }
    assert_eq!(written, whole);
}

/// Asks the parser itself which keys there are, by writing one that is not, and looks each up in the example.
#[test]
fn the_example_names_every_key() {
    let without_both =
        uncommented(true).replace("registration_shared_secret = ", "# ").replace("\ncommand = ", "\n# ");
    with(&without_both, &[]).unwrap();
    let documented = toml::Value::Table(toml::from_str(&uncommented(true)).unwrap());
    let mut sections = vec![Vec::<String>::new()];
    let mut keys = 0;
    while let Some(section) = sections.pop() {
        let Some(names) = names(&section) else { continue };
        for name in names {
            let path = [section.clone(), vec![name]].concat();
            assert!(is_there(&documented, &path), "{} is not in deploy/chappe.toml", path.join("."));
            keys += 1;
            sections.push(path);
        }
    }
    assert!(keys > 100, "{keys}");
}

/// The keys of a section; `None` when the path leads to a value.
fn names(section: &[String]) -> Option<Vec<String>> {
    let path = section.join(".");
    let header = match &*path {
        "" => String::new(),
        "listeners" | "client.support_contacts" | "sso.providers" => format!("[[{path}]]\n"),
        // One that is whole but for the key that is asked for.
        "sso.providers.accounts" => format!("[[sso.providers]]\n[{path}]\n"),
        _ => format!("[{path}]\n"),
    };
    let text = if header.is_empty() {
        format!("no_such_key = 1\n{SMALL}")
    } else if path.starts_with("listeners") {
        SMALL.split("[[").next().unwrap().to_owned()
            + "[[listeners]]\n"
            + &header.replace("[[listeners]]\n", "")
            + "no_such_key = 1\n"
    } else {
        format!("{SMALL}{header}no_such_key = 1\n")
    };
    let said = sentence_or_none(&text)?;
    let expected = said.split_once("unknown field `no_such_key`, expected ")?.1;
    let expected = expected.lines().next()?;
    Some(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

fn sentence_or_none(text: &str) -> Option<String> {
    with(text, &[]).err().map(|error| error.to_string())
}

/// Of several tables any will do: none of them has to show every key.
fn is_there(at: &toml::Value, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let inside = |table: &toml::Value| table.get(name).is_some_and(|inside| is_there(inside, rest));
    match at {
        toml::Value::Array(items) => items.iter().any(inside),
        table => inside(table),
    }
}

/// The keys of a table that have values, tables within it aside.
fn leaves(above: &str, table: &toml::Table) -> Vec<String> {
    let leaf = |(name, value): (&String, &toml::Value)| {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            toml::Value::Table(inside) => leaves(&key, inside),
            _ => vec![key],
        }
    };
    table.iter().flat_map(leaf).collect()
}

#[test]
fn the_example_says_of_every_key_when_it_takes_effect() {
    for key in leaves("", &toml::from_str(&uncommented(true)).unwrap()) {
        assert!(when(&key).is_some(), "{key} is not in the table of `live`");
    }
    let head = EXAMPLE.lines().take_while(|line| line.starts_with('#'));
    let head = head.map(|line| line.trim_start_matches(['#', ' '])).collect::<Vec<_>>().join(" ");
    for (said, effect) in
        [("At once", When::AtOnce), ("At the next start", When::NextStart), ("Never", When::Never)]
    {
        let keys = KEYS.iter().filter(|(_, when)| *when == effect).map(|(key, _)| *key);
        let list = format!("{said}: {}.", keys.collect::<Vec<_>>().join(", "));
        assert!(head.contains(&list), "the head of deploy/chappe.toml lacks: {list}");
    }
}

/// What becomes of a server that runs by the small file and `old` when it reads the small file and `new`.
fn followed(old: &str, new: &str) -> Result<(Config, Vec<String>, Vec<String>), String> {
    let read = |more: &str| with(&format!("{SMALL}{more}"), &[]).unwrap();
    let followed = read(old).follow(&read(new)).map_err(|error| error.to_string());
    followed.map(|(config, changes)| (config, changes.applied, changes.waiting))
}

#[test]
fn what_is_read_again_is_taken_over_key_by_key() {
    let old = "[media]\nmax_pixels = 1\n[mail]\nhost = \"h\"\nfrom = \"a@b.fr\"\n[rooms.retention]\n";
    let new = "[media]\nmax_pixels = 2\nremote_at_once = 3\n[log]\nlevel = \"warn\"\nformat = \"json\"\n\
        [client.rates]\nmessage = { per_second = 1.0, burst = 2 }\n";
    let (config, applied, waiting) = followed(old, new).unwrap();
    assert_eq!(
        applied,
        [
            "client.rates.message.burst",
            "client.rates.message.per_second",
            "log.level",
            "mail.from",
            "mail.host",
            "media.max_pixels",
            "rooms.retention",
        ]
    );
    assert_eq!(waiting, ["log.format", "media.remote_at_once"]);
    assert_eq!((config.media.max_pixels, config.media.remote_at_once), (2, 64));
    assert_eq!((&*config.log.level, config.log.format), ("warn", LogFormat::Pretty));
    assert!(config.mail.is_none() && config.rooms.retention.is_none());
    let (_, applied, waiting) = followed(new, new).unwrap();
    assert!(applied.is_empty() && waiting.is_empty());
    let (config, applied, _) = followed("", "[rooms.retention]\n").unwrap();
    assert!(config.rooms.retention.is_some() && applied == ["rooms.retention"], "an empty section is one");
    // What runs is compared with, not what was read last.
    let again = with(&format!("{SMALL}{new}"), &[]).unwrap();
    let (config, _, _) = followed(old, new).unwrap();
    let (_, changes) = config.follow(&again).unwrap();
    assert_eq!(
        (changes.applied.len(), &*changes.waiting),
        (0, &["log.format".to_owned(), "media.remote_at_once".to_owned()][..])
    );
}

#[test]
fn what_cannot_be_taken_over_waits_or_is_refused() {
    let (config, applied, waiting) =
        followed("", "[scanner]\nclamd = \"/s\"\nenforce = true\nmax_bytes = 1\n").unwrap();
    assert!(!config.scanner.enforce, "there is nothing yet that scans");
    assert_eq!(
        (applied, waiting),
        (
            vec!["scanner.max_bytes".to_owned()],
            vec!["scanner.clamd".to_owned(), "scanner.enforce".to_owned()]
        )
    );
    let (old, new) = (with(SMALL, &[]).unwrap(), with(&SMALL.replace("hs1", "hs2"), &[]).unwrap());
    assert!(old.follow(&new).unwrap_err().to_string().contains("`server_name` cannot be changed"));
    let moved = with(&SMALL.replace("/tmp/x", "/tmp/y"), &[]).unwrap();
    assert!(old.follow(&moved).unwrap_err().to_string().contains("`data_dir` cannot be changed"));
}

#[test]
fn logs_are_told_what_is_wrong_and_not_what_is_written() {
    for (section, sentence) in [
        ("[client.turn]\nuris = []\nsecret = 12345678\n", "`client.turn.secret`: expected a string"),
        ("[log]\nformat = \"12345678\"\n", "`log.format`: expected `pretty` or `json`"),
        ("[log]\nlevle = \"12345678\"\n", "`log.levle`: unknown field `levle`"),
        ("[log]\nlevel = \"12345678\n", "chappe.toml, line 8: "),
    ] {
        let error = with(&format!("{SMALL}{section}"), &[]).unwrap_err();
        let said = error.without_values();
        assert!(said.contains(sentence) && !said.contains("12345678"), "{said}");
        assert!(error.to_string().contains("12345678"), "who wrote it is shown it");
    }
}
