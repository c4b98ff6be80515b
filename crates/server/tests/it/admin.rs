//! The admin verbs through the socket of a running server and beside a stopped one.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use http::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    backup::{configuration, run, start},
    lab::Lab,
};

fn login(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": user },
    })
}

#[tokio::test]
async fn verbs_work_on_the_running_server_at_once() {
    let lab = Lab::start("[federation]\nallow = [\"configured.example\"]").await;
    let http = lab.http();
    let created = lab.admin(&["--json", "users", "create", "alice", "--admin"]).await.unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    let password = created["password"].as_str().unwrap();
    let (status, session) = http.post("/_matrix/client/v3/login", login("alice", password)).await;
    assert_eq!(status, StatusCode::OK, "{session}");
    let token = session["access_token"].as_str().unwrap();
    let whoami = || http.get("/_matrix/client/v3/account/whoami", Some(token));
    assert_eq!(whoami().await.0, StatusCode::OK);

    lab.admin(&["users", "lock", "@alice:agent.example.gouv.fr"]).await.unwrap();
    let (status, said) = whoami().await;
    assert_eq!((status, &said["errcode"]), (StatusCode::UNAUTHORIZED, &json!("M_USER_LOCKED")));
    lab.admin(&["users", "unlock", "alice"]).await.unwrap();
    assert_eq!(whoami().await.0, StatusCode::OK);
    let shown = lab.admin(&["users", "show", "alice"]).await.unwrap();
    assert!(shown.contains("administrator") && shown.contains("device"), "{shown}");

    lab.admin(&["users", "reset-password", "alice"]).await.unwrap();
    assert_eq!(whoami().await.0, StatusCode::UNAUTHORIZED);
    assert!(lab.admin(&["users", "list"]).await.unwrap().contains("@alice:agent.example.gouv.fr"));
    lab.admin(&["users", "deactivate", "alice"]).await.unwrap();
    assert!(!lab.admin(&["users", "list"]).await.unwrap().contains("@alice"));
    let unknown = lab.admin(&["users", "lock", "nobody"]).await.unwrap_err();
    assert!(unknown.contains("@nobody:agent.example.gouv.fr not found"), "{unknown}");

    lab.admin(&["servers", "allow", "*.tchap.gouv.fr"]).await.unwrap();
    let servers = lab.admin(&["servers", "list"]).await.unwrap();
    assert!(servers.contains("*.tchap.gouv.fr") && servers.contains("configured.example"), "{servers}");
    assert!(lab.admin(&["servers", "deny", "configured.example"]).await.is_err());
    lab.admin(&["servers", "deny", "*.tchap.gouv.fr"]).await.unwrap();

    let made = lab.admin(&["tokens", "create", "--uses", "2"]).await.unwrap();
    assert!(lab.admin(&["tokens", "list"]).await.unwrap().contains(made.trim()));
    lab.admin(&["tokens", "revoke", made.trim()]).await.unwrap();
    assert!(lab.admin(&["status"]).await.unwrap().contains("running"));
    assert_eq!(lab.admin(&["rooms", "list"]).await.unwrap().trim(), "");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_work_beside_a_stopped_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::write(folder.path().join("chappe.toml"), configuration(&data)).unwrap();
    let run = async |arguments: &[&str]| run(folder.path(), &[&["admin"][..], arguments].concat()).await;
    let early = run(&["status"]).await.unwrap_err();
    assert!(early.contains("start the server once"), "{early}");
    // As a first start leaves it that breaks off before there is a key.
    std::fs::create_dir_all(data.join("database")).unwrap();
    let early = run(&["users", "create", "alice"]).await.unwrap_err();
    assert!(early.contains("start the server once"), "{early}");
    start(folder.path()).await.stop().await;

    run(&["domains", "add", "gouv.fr", "--note", "ticket 12"]).await.unwrap();
    let listed = run(&["domains", "list"]).await.unwrap();
    assert!(listed.contains("gouv.fr") && listed.contains("ticket 12"), "{listed}");
    let import = folder.path().join("domains.txt");
    std::fs::write(&import, "a.fr\nb.fr # b\n").unwrap();
    let said = run(&["domains", "import", import.to_str().unwrap()]).await.unwrap();
    assert!(said.contains("2 added"), "{said}");
    let said = run(&["domains", "check", "jean@a.fr"]).await.unwrap();
    assert!(said.contains("may sign up"), "{said}");
    run(&["domains", "remove", "a.fr"]).await.unwrap();
    let said = run(&["domains", "check", "jean@a.fr"]).await.unwrap();
    assert!(said.contains("may not sign up"), "{said}");
    assert!(run(&["domains", "add", "not a domain"]).await.is_err());

    run(&["users", "create", "alice"]).await.unwrap();
    assert!(run(&["users", "list"]).await.unwrap().contains("@alice:hs1"));
    let said = run(&["users", "deactivate", "alice"]).await.unwrap();
    assert!(said.contains("left when the server starts"), "{said}");
    assert!(!run(&["users", "list"]).await.unwrap().contains("@alice:hs1"));
    let open = run(&["servers", "allow", "x.fr"]).await.unwrap_err();
    assert!(open.contains("federation is open"), "{open}");
    assert!(run(&["status"]).await.unwrap().contains("stopped"));
}

/// Runs `chappe …` with something to read; what it says.
fn piped(program: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Run by root, the data folder is somebody else's, as where the server is installed: that one does it, with what root reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_goes_along_to_the_owner_of_the_data() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (file, database, secret) = (at("chappe.toml"), at("data/database"), at("more.txt"));
    start(folder.path()).await.stop().await;
    std::fs::write(&secret, "d.fr\n").unwrap();
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_chappe"));
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        // The folder of builds may be closed to others.
        let copied = Command::new("cp").args([&program, &at("chappe")]).status().unwrap();
        assert!(copied.success());
        program = at("chappe");
        for (place, mode) in [(folder.path(), 0o755), (file.as_path(), 0o644), (secret.as_path(), 0o600)] {
            std::fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
        }
        let owner = format!("{NOBODY}:{NOBODY}");
        let given = Command::new("chown").arg("-R").arg(owner).arg(at("data")).status().unwrap();
        assert!(given.success());
    }
    let admin = |arguments: &[&str], input: &str| {
        let first = ["--config", file.to_str().unwrap(), "admin"];
        piped(&program, &[&first[..], arguments].concat(), input)
    };
    assert!(admin(&["domains", "import", "-"], "a.fr\nb.fr\n").contains("2 added"));
    assert!(admin(&["domains", "import", secret.to_str().unwrap()], "").contains("1 added"));
    let given = json!({ "domains": { "import": { "text": "a.fr\nc.fr\n" } } }).to_string();
    let said = admin(&["given", "--json"], &given);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!({ "added": 1, "known": 1 }));
    let mut owners =
        std::fs::read_dir(&database).unwrap().map(|entry| entry.unwrap().metadata().unwrap().uid());
    assert!(!is_root || owners.all(|owner| owner == NOBODY));
}

#[tokio::test]
async fn a_long_file_gets_to_the_running_server() {
    let lab = Lab::start("").await;
    let file = lab.folder.path().join("domains.txt");
    std::fs::write(&file, "# nobody\n".repeat(400_000) + "a.fr\n").unwrap();
    let said = lab.admin(&["domains", "import", file.to_str().unwrap()]).await.unwrap();
    assert!(said.contains("1 added"), "{said}");
    lab.stop().await;
}

#[tokio::test]
async fn whoever_knows_the_shared_secret_makes_accounts() {
    let lab = Lab::start("[admin]\nregistration_shared_secret = \"complement\"").await;
    let http = lab.http();
    let path = "/_synapse/admin/v1/register";
    let nonce = async || http.get(path, None).await.1["nonce"].as_str().unwrap().to_owned();
    let body = |nonce: &str, admin: bool, secret: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let admin_word = if admin { "admin" } else { "notadmin" };
        let signed = format!("{nonce}\0bob\0correct horse\0{admin_word}");
        let mac = hmac::sign(&key, signed.as_bytes());
        let mac = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        json!({ "nonce": nonce, "username": "bob", "password": "correct horse", "admin": admin, "mac": mac })
    };
    let first = nonce().await;
    let (status, said) = http.post(path, body(&first, false, "wrong")).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")));
    let (status, _) = http.post(path, body(&first, false, "complement")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a nonce is good for one attempt");

    let mut forged = body(&nonce().await, false, "complement");
    forged["admin"] = json!(true);
    assert_eq!(http.post(path, forged).await.0, StatusCode::FORBIDDEN);

    let (status, made) = http.post(path, body(&nonce().await, true, "complement")).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!(made["user_id"], "@bob:agent.example.gouv.fr");
    assert_eq!(made["home_server"], "agent.example.gouv.fr");
    let token = made["access_token"].as_str().unwrap();
    let (_, who) = http.get("/_matrix/client/v3/account/whoami", Some(token)).await;
    assert_eq!(who["device_id"], made["device_id"]);
    assert!(lab.admin(&["users", "show", "bob"]).await.unwrap().contains("administrator"));
    let (status, said) = http.post(path, body(&nonce().await, false, "complement")).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_USER_IN_USE")));
    lab.stop().await;
}

#[tokio::test]
async fn without_a_secret_there_is_no_such_endpoint() {
    let lab = Lab::start("").await;
    let (status, said) = lab.http().call(Method::GET, "/_synapse/admin/v1/register", None, Value::Null).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::NOT_FOUND, &json!("M_UNRECOGNIZED")));
    lab.stop().await;
}

#[tokio::test]
async fn rooms_files_reports_and_notices_are_dealt_with_at_the_machine() {
    let lab = Lab::start("[rooms.notices]\nuser = \"annonces\"\n[rooms.retention]\ndefault_days = 30").await;
    let http = lab.http();
    let created = lab.admin(&["--json", "users", "create", "alice"]).await.unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    let log_in = login("alice", created["password"].as_str().unwrap());
    let session = http.post("/_matrix/client/v3/login", log_in).await.1;
    let token = Some(session["access_token"].as_str().unwrap());
    let client = |method, path: String, body| {
        let http = http.clone();
        async move { http.call(method, &format!("/_matrix/client/v3{path}"), token, body).await.1 }
    };
    let room = client(Method::POST, "/createRoom".to_owned(), json!({})).await["room_id"].clone();
    let room = room.as_str().unwrap();
    let say = format!("/rooms/{room}/send/m.room.message/1");
    let said =
        client(Method::PUT, say, json!({ "msgtype": "m.text", "body": "bad" })).await["event_id"].clone();
    let report = format!("/rooms/{room}/report/{}", said.as_str().unwrap());
    client(Method::POST, report, json!({ "reason": "no good" })).await;

    let reports = lab.admin(&["reports", "list"]).await.unwrap();
    assert!(reports.contains("no good") && reports.contains(room), "{reports}");
    let id = reports.split_whitespace().next().unwrap();
    assert!(lab.admin(&["reports", "show", id]).await.unwrap().contains("\"bad\""));
    lab.admin(&["reports", "dismiss", id]).await.unwrap();
    assert_eq!(lab.admin(&["reports", "list"]).await.unwrap().trim(), "");

    lab.admin(&["notices", "send", "alice", "Maintenance at noon"]).await.unwrap();
    let sync = client(Method::GET, "/sync?timeout=0".to_owned(), Value::Null).await;
    assert!(sync["rooms"]["invite"].to_string().contains("@annonces:agent.example.gouv.fr"), "{sync}");

    let unknown = lab.admin(&["media", "quarantine", "mxc://agent.example.gouv.fr/none"]).await.unwrap_err();
    assert!(unknown.contains("no such media"), "{unknown}");
    lab.admin(&["media", "quarantine", "mxc://b.example/far"]).await.unwrap();
    assert!(lab.admin(&["media", "show", "mxc://b.example/far"]).await.unwrap().contains("given to nobody"));
    lab.admin(&["media", "unquarantine", "mxc://b.example/far"]).await.unwrap();
    assert!(lab.admin(&["media", "show", "mxc://b.example/far"]).await.is_err());
    assert!(lab.admin(&["media", "purge-remote", "--unused-days", "1"]).await.unwrap().contains("0 copies"));

    assert!(lab.admin(&["rooms", "show", room]).await.unwrap().contains("kept     for 30 days"));
    assert!(lab.admin(&["rooms", "expire", room]).await.unwrap().contains("0 events taken away"));
    assert!(lab.admin(&["rooms", "expire", "!none:b.example"]).await.unwrap_err().contains("not found"));
    lab.admin(&["rooms", "block", room]).await.unwrap();
    lab.admin(&["rooms", "unblock", room]).await.unwrap();
    lab.admin(&["rooms", "purge-history", room, "--older-than-days", "0", "--with-local"]).await.unwrap();
    lab.admin(&["rooms", "delete", room]).await.unwrap();
    let mut jobs = String::new();
    for _ in 0..1_000 {
        jobs = lab.admin(&["jobs", "list"]).await.unwrap();
        if jobs.matches(" done ").count() == 2 {
            break;
        }
    }
    assert!(jobs.contains("delete") && jobs.contains("1 users out") && !jobs.contains("given up"), "{jobs}");
    assert!(!lab.admin(&["rooms", "list"]).await.unwrap().contains(room));
    assert!(lab.admin(&["rooms", "delete", room]).await.unwrap_err().contains("not found"));
    lab.stop().await;
}

#[tokio::test]
async fn what_administrators_do_is_written_down() {
    let lab = Lab::start("[rooms.notices]\nuser = \"notices\"").await;
    let http = lab.http();
    let created = lab.admin(&["--json", "users", "create", "alice", "--admin"]).await.unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    let password = created["password"].as_str().unwrap();
    let (_, session) = http.post("/_matrix/client/v3/login", login("alice", password)).await;
    let token = session["access_token"].as_str().unwrap();
    let bob = "/_synapse/admin/v2/users/@bob:agent.example.gouv.fr";
    let body = json!({ "password": "a secret of bob's", "displayname": "Bob" });
    let (status, made) = http.call(Method::PUT, bob, Some(token), body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let state = "/_synapse/admin/v1/rooms/!none:agent.example.gouv.fr/state";
    assert_eq!(http.get(state, Some(token)).await.0, StatusCode::NOT_FOUND);
    lab.admin(&["users", "lock", "nobody"]).await.unwrap_err();
    // Nothing of these is worth an entry.
    assert_eq!(http.get(bob, Some(token)).await.0, StatusCode::OK);
    assert_eq!(http.call(Method::PUT, bob, None, json!({})).await.0, StatusCode::UNAUTHORIZED);
    lab.admin(&["users", "list"]).await.unwrap();

    let listed = lab.admin(&["audit", "list"]).await.unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 8, "{listed}");
    assert!(lines[7].contains("@_operator:agent.example.gouv.fr chappe admin") && lines[7].contains("alice"));
    assert!(
        lines[5].contains(&format!("@alice:agent.example.gouv.fr PUT {bob}")) && lines[5].contains("Bob")
    );
    assert!(lines[4].ends_with("3 done"), "{listed}");
    assert!(lines[3].contains(&format!("GET {state}")) && lines[2].contains("5 not done: 404"), "{listed}");
    assert!(lines[0].contains("not done: @nobody:agent.example.gouv.fr not found"), "{listed}");
    assert!(!listed.contains("secret of bob"), "{listed}");
    let (_, shown) = http.get("/_chappe/admin/v1/audit?limit=1&before=4", Some(token)).await;
    assert_eq!(shown["entries"][0]["number"], 3, "{shown}");
    assert_eq!(http.get("/_chappe/admin/v1/audit", None).await.0, StatusCode::UNAUTHORIZED);

    let said = lab.admin(&["audit", "verify"]).await.unwrap();
    let mark = said.lines().nth(1).unwrap();
    assert!(mark.starts_with("8:"), "{said}");
    lab.admin(&["audit", "verify", "--noted", mark]).await.unwrap();
    let other = format!("8:{}", "0".repeat(64));
    let said = lab.admin(&["audit", "verify", "--noted", &other]).await.unwrap_err();
    assert!(said.contains("entry 8 is not the one"), "{said}");
    assert!(lab.admin(&["audit", "verify", "--noted", "8"]).await.is_err());
    lab.stop().await;
}

#[tokio::test]
async fn verbs_are_written_down_and_secrets_are_not() {
    let lab = Lab::start("").await;
    lab.admin(&["users", "create", "alice"]).await.unwrap();
    lab.admin(&["users", "reset-password", "alice"]).await.unwrap();
    lab.admin(&["tokens", "create", "--token", "s3cret", "--uses", "2"]).await.unwrap();
    lab.admin(&["tokens", "revoke", "s3cret"]).await.unwrap();
    let listed = lab.admin(&["audit", "list"]).await.unwrap();
    let asked =
        |verb: &str| listed.lines().find(|line| line.contains(&format!("chappe admin {verb} "))).unwrap();
    assert!(asked("users reset-password").contains("\"user\":\"alice\""), "{listed}");
    assert!(asked("tokens create").contains("\"uses\":2"), "{listed}");
    assert!(asked("tokens revoke").contains(" UTC ") && !listed.contains("s3cret"), "{listed}");
    lab.stop().await;
}

#[tokio::test]
async fn an_announcement_reaches_those_whom_it_concerns_once() {
    let lab = Lab::start("[rooms.notices]\nuser = \"notices\"\nauto_join = true").await;
    let http = lab.http();
    let mut tokens = Vec::new();
    for (name, address) in [("ann", "ann@a.gouv.fr"), ("ben", "ben@x.b.gouv.fr"), ("cat", "cat@c.fr")] {
        let made = lab.admin(&["--json", "users", "create", name, "--admin"]).await.unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let password = made["password"].as_str().unwrap();
        let (_, session) = http.post("/_matrix/client/v3/login", login(name, password)).await;
        let token = session["access_token"].as_str().unwrap().to_owned();
        let path = format!("/_synapse/admin/v2/users/@{name}:agent.example.gouv.fr");
        let body = json!({ "threepids": [{ "medium": "email", "address": address }] });
        assert_eq!(http.call(Method::PUT, &path, Some(&token), body).await.0, StatusCode::OK);
        tokens.push(token);
    }
    let start = "/_chappe/admin/v1/announcements";
    for bad in [
        json!({ "content": { "msgtype": "m.text" } }),
        json!({ "content": { "body": "x" }, "to": ["*"] }),
        json!({ "to": ["a.gouv.fr"] }),
    ] {
        let (status, said) = http.call(Method::POST, start, Some(&tokens[0]), bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
    }
    let content = json!({ "msgtype": "m.text", "body": "works on Friday" });
    let body = json!({ "content": content, "to": ["a.gouv.fr", "*.b.gouv.fr"] });
    let (status, begun) = http.call(Method::POST, start, Some(&tokens[0]), body).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    let path = format!("{start}/{}", begun["announcement_id"].as_str().unwrap());
    let progress = async || loop {
        let (_, shown) = http.get(&path, Some(&tokens[0])).await;
        if shown["status"] == "complete" {
            return shown;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let shown = tokio::time::timeout(std::time::Duration::from_secs(20), progress()).await.unwrap();
    assert_eq!((&shown["told"], &shown["failed"]), (&json!(2), &json!(0)), "{shown}");
    assert_eq!(http.get(&format!("{start}/nothing"), Some(&tokens[0])).await.0, StatusCode::NOT_FOUND);

    let said = lab.admin(&["notices", "announce", "to all"]).await.unwrap();
    let job = said.split_whitespace().last().unwrap();
    let done = async || {
        while !lab.admin(&["jobs", "list"]).await.unwrap().contains(&format!("{job} done")) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), done()).await.unwrap();
    assert!(lab.admin(&["notices", "announce", "--to", "*", "x"]).await.is_err());
    for (token, told) in tokens.iter().zip([2, 2, 1]) {
        let (_, synced) = http.get("/_matrix/client/v3/sync", Some(token)).await;
        let rooms = synced["rooms"]["join"].as_object().unwrap();
        let events = rooms.values().flat_map(|room| room["timeline"]["events"].as_array().unwrap());
        let said = events.filter(|event| event["type"] == "m.room.message").count();
        assert_eq!(said, told, "{synced}");
    }
    lab.stop().await;
}
