//! Starting, health, metrics and stopping.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use http::{Request, StatusCode};
use serde_json::json;

use crate::lab::{Http, Lab, chappe};

#[tokio::test]
async fn a_waiting_sync_is_answered_when_the_server_stops() {
    let lab = Lab::start("").await;
    let http = lab.http();
    let created = lab.admin(&["--json", "users", "create", "alice"]).await.unwrap();
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    let login = json!({
        "type": "m.login.password", "password": created["password"],
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let (_, session) = http.post("/_matrix/client/v3/login", login).await;
    let token = session["access_token"].as_str().unwrap().to_owned();
    let (status, first) = http.get("/_matrix/client/v3/sync?timeout=0", Some(&token)).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    let since = first["next_batch"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/sync?since={since}&timeout=600000");
    let waiting = http.get(&path, Some(&token));
    let (answered, _folder) = tokio::join!(waiting, async {
        // The stop comes after the request, which waits by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        lab.stop().await
    });
    assert!(answered.0 == StatusCode::OK || answered.0 == StatusCode::SERVICE_UNAVAILABLE, "{answered:?}");
}

#[tokio::test]
async fn health_and_metrics() {
    let lab = Lab::start("").await;
    let http = lab.http();
    let (status, body) = http.raw(Request::get(http.uri("/health")), String::new()).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok\n"));
    http.get("/_matrix/client/v3/rooms/!secret:x/members", None).await;
    let (_, metrics) = http.raw(Request::get(http.uri("/metrics")), String::new()).await;
    assert!(metrics.contains("chappe_http_requests_total{") && metrics.contains("chappe_store_position"));
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
        assert!(metrics.contains(name), "{name}");
    }
    for name in ["chappe_attached_users", "chappe_outbox_destinations", "chappe_http_requests_under_way"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(!metrics.contains("secret"), "no room ids in metrics");
    for path in ["/_matrix/client/v3/no/such/thing", "/_matrix/client/versions"] {
        http.raw(Request::builder().method("BREW").uri(http.uri(path)), String::new()).await;
    }
    let (_, metrics) = http.raw(Request::get(http.uri("/metrics")), String::new()).await;
    assert!(
        !metrics.contains("BREW") && metrics.contains("method=\"other\",endpoint=\"unknown\",status=\"404\""),
        "{metrics}"
    );
    lab.stop().await;
}

/// The whole process: starts, says where it listens and to systemd that it is up, stops at SIGTERM with exit code 0, keeps
/// one server per folder.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
async fn the_process_starts_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chappe.toml");
    let text = format!(
        "server_name = \"hs1\"\ndata_dir = \"{}\"\npublic_baseurl = \"http://hs1\"\n[[listeners]]\nport = 0\napis = [\"client\", \"health\"]\n[log]\nformat = \"json\"\n",
        folder.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let manager = folder.path().join("notify");
    let told = UnixDatagram::bind(&manager).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_chappe"))
        .args(["serve", "--config", file.to_str().unwrap()])
        .env("NOTIFY_SOCKET", &manager)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let (address, lines) = tokio::task::spawn_blocking(move || {
        let address = lines
            .by_ref()
            .map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap())
            .find(|line| line["message"] == "listening")
            .and_then(|line| line["address"].as_str().map(str::to_owned))
            .unwrap();
        let mut word = [0; 32];
        let length = told.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
        (address, lines)
    })
    .await
    .unwrap();
    let http = Http::to(address.parse().unwrap());
    let (status, _) = http.raw(Request::get(http.uri("/health")), String::new()).await;
    assert_eq!(status, StatusCode::OK);
    let arguments = |command: &str| [command, "--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
    chappe(arguments("health")).await.unwrap();
    let second = chappe(arguments("serve")).await.unwrap_err();
    assert!(second.contains("database"), "{second}");

    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        drop(lines.collect::<Vec<_>>());
        child.wait().unwrap()
    })
    .await
    .unwrap();
    assert!(status.success(), "{status}");
    assert!(chappe(arguments("health")).await.is_err());
}

#[tokio::test]
async fn a_wrong_configuration_is_named_with_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chappe.toml");
    std::fs::write(&file, "server_name = \"hs1\"\ndata_dir = \"/tmp/x\"\npublic_baseurl = \"http://x\"\n[[listeners]]\nport = 8008\napis = [\"client\", \"clinet\"]\n").unwrap();
    let arguments = ["config", "check", "--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
    let said = chappe(arguments).await.unwrap_err();
    assert!(
        said.contains("chappe.toml, line 6") && said.contains("clinet") && said.contains("apis"),
        "{said}"
    );
}

#[tokio::test]
async fn files_that_the_configuration_names_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chappe.toml");
    let text = "server_name = \"hs1\"\ndata_dir = \"/tmp/x\"\npublic_baseurl = \"http://x\"\n[[listeners]]\nport = 8008\napis = [\"client\", \"admin\"]\n";
    for (more, key) in [
        ("tls = { certificate = \"/no/such.pem\", key = \"/no/such.key\" }\n", "listeners.0.tls"),
        ("[outbound]\ncertificate_authorities = [\"/no/such.pem\"]\n", "outbound.certificate_authorities"),
        (
            "[outbound]\nclient_certificate = { certificate = \"/no/such.pem\", key = \"/no/such.key\" }\n",
            "outbound.client_certificate",
        ),
        ("[mail]\nhost = \"h\"\nfrom = \"a@b.fr\"\nusername = \"u\"\npassword_file = \"/no/such\"\n", "mail"),
        (
            "[admin]\nregistration_shared_secret_file = \"/no/such\"\n",
            "admin.registration_shared_secret_file",
        ),
    ] {
        std::fs::write(&file, format!("{text}{more}")).unwrap();
        let arguments = ["config", "check", "--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
        let said = chappe(arguments).await.unwrap_err();
        assert!(said.contains(&format!("`{key}`")) && said.contains("/no/such"), "{said}");
    }
    std::fs::write(&file, format!("{text}[outbound]\nproxy = \"http://user:hunter2@no.such:3128\"\n"))
        .unwrap();
    let arguments = ["config", "check", "--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
    let said = chappe(arguments).await.unwrap_err();
    assert!(said.contains("`outbound.proxy`") && !said.contains("hunter2"), "{said}");
}
