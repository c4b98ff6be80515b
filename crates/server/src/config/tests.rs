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
fn every_key_that_the_example_comments_out_is_right_as_well() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.split(" = ").next().is_some_and(|key| !key.contains([' ', '.', ':', '`', ',']))
                    && rest.contains(" = ") =>
            {
                rest
            }
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    assert_ne!(uncommented, EXAMPLE);
    with(&uncommented, &[]).unwrap();
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
    assert!(said.starts_with("chappe.toml, line 8: ") && said.contains("`levle`"), "{said}");

    let text = SMALL.replace("port = 8008", "port = \"http\"");
    let said = sentence(&text, &[]);
    assert!(said.contains("line 5") && said.contains("port") && said.contains("invalid type"), "{said}");

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
    assert!(said.contains("public_baseurl") && said.contains("apis"), "{said}");
}
