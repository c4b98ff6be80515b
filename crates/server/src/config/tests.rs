//! Tests of the configuration.

use super::{Api, Config, EXAMPLE, Error, LogFormat, parse};

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
