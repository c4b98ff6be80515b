//! A backup of a running server, put back elsewhere.

use std::path::Path;

use chappe_kv::Db;
use chappe_kv_rocksdb::{Options, Rocks};
use chappe_server::{Server, config};
use chappe_store::{
    Json, Meta, Store, Tx,
    accounts_keys::{RemoteList, RemoteLists},
    oauth::{TokenFamilies, TokenFamily},
    outbox::{Announced, AnnouncedDevices},
};
use chappe_world::World;
use http::{Method, Request, StatusCode, header};
use ruma::owned_user_id;
use serde_json::{Value, json};

use crate::lab::{Http, chappe};

pub(crate) fn configuration(data: &Path) -> String {
    format!(
        "server_name = \"hs1\"\ndata_dir = \"{}\"\npublic_baseurl = \"http://hs1\"\n[[listeners]]\nport = 0\napis = [\"client\", \"media\"]\n[log]\nlevel = \"warn\"\n[accounts.password]\nmemory_kib = 64\npasses = 1\n",
        data.display()
    )
}

/// A server on the disk, with its configuration beside the data.
pub(crate) async fn start(folder: &Path) -> Server {
    let data = folder.join("data");
    let text = configuration(&data);
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(folder.join("chappe.toml"), &text).unwrap();
    let config = config::parse("chappe.toml", &text, std::iter::empty()).unwrap();
    let rocks = Rocks::open(&data.join("database"), &Options::default(), chappe_store::registry::class);
    let world = World::real(&config.outbound).unwrap();
    Server::start(&config, world, Db::new(rocks.unwrap())).await.unwrap()
}

pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let config = folder.join("chappe.toml");
    let all = ["--config", config.to_str().unwrap()];
    chappe(all.iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()).await
}

async fn log_in(http: &Http, password: &Value) -> (StatusCode, Value) {
    let login = json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    http.post("/_matrix/client/v3/login", login).await
}

/// Alice's password, and what she is answered when she logs in.
async fn sign_up(folder: &Path, http: &Http) -> (Value, Value) {
    let made = run(folder, &["admin", "--json", "users", "create", "alice"]).await.unwrap();
    let password = serde_json::from_str::<Value>(&made).unwrap()["password"].clone();
    let (_, session) = log_in(http, &password).await;
    (password, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lives_on_elsewhere_as_it_was_when_the_backup_was_made() {
    let (old, new, aside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(old.path()).await;
    let http = Http::to(server.addresses()[0]);
    let (password, session) = sign_up(old.path(), &http).await;
    let bearer = format!("Bearer {}", session["access_token"].as_str().unwrap());
    let upload = Request::post(http.uri("/_matrix/media/v3/upload")).header(header::AUTHORIZATION, &bearer);
    let (status, uploaded) =
        http.raw(upload.header(header::CONTENT_TYPE, "text/plain"), "dépêche".into()).await;
    assert_eq!(status, StatusCode::OK, "{uploaded}");
    let uri = serde_json::from_str::<Value>(&uploaded).unwrap()["content_uri"].as_str().unwrap().to_owned();

    let backup = aside.path().join("backup");
    let folder = backup.to_str().unwrap();
    let said = run(old.path(), &["admin", "backup", folder]).await.unwrap();
    assert!(said.contains("1 media files"), "{said}");
    assert!(run(old.path(), &["admin", "backup", folder]).await.is_err(), "a backup is not overwritten");
    run(old.path(), &["admin", "users", "create", "bob"]).await.unwrap();
    server.stop().await;

    std::fs::write(new.path().join("chappe.toml"), configuration(&new.path().join("data"))).unwrap();
    let said = run(new.path(), &["restore", folder]).await.unwrap();
    assert!(said.contains("hs1 is as it was"), "{said}");
    let again = run(new.path(), &["restore", folder]).await.unwrap_err();
    assert!(again.contains("nothing is overwritten"), "{again}");
    let users = run(new.path(), &["admin", "users", "list"]).await.unwrap();
    assert!(users.contains("@alice:hs1") && !users.contains("@bob:hs1"), "{users}");

    let server = start(new.path()).await;
    let http = Http::to(server.addresses()[0]);
    assert_eq!(log_in(&http, &password).await.0, StatusCode::OK);
    let path = uri.replace("mxc://", "/_matrix/client/v1/media/download/");
    let download = Request::get(http.uri(&path)).header(header::AUTHORIZATION, &bearer);
    assert_eq!(http.raw(download, String::new()).await, (StatusCode::OK, "dépêche".to_owned()));
    let status = run(new.path(), &["admin", "--json", "status"]).await.unwrap();
    let position = serde_json::from_str::<Value>(&status).unwrap()["position"].as_u64().unwrap();
    assert!(position > 1 << 40, "no position of the lost server is given out again: {position}");
    server.stop().await;
    let keys = [&old, &new].map(|dir| std::fs::read(dir.path().join("data/signing.key")).unwrap());
    assert_eq!(keys[0], keys[1]);
}

/// A store that no server has open.
pub(crate) fn store(database: &Path) -> Store {
    let class = chappe_store::registry::class;
    Store::new(Db::new(Rocks::open(database, &Options::default(), class).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_lists_are_not_believed_after_a_backup_was_put_back() {
    let (old, new, aside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (alice, carol) = (owned_user_id!("@alice:hs1"), owned_user_id!("@carol:hs2"));
    std::fs::create_dir_all(old.path().join("data")).unwrap();
    let mut tx = Tx::new();
    tx.put::<RemoteLists>(&carol, &Json(RemoteList { stream_id: 7, ..RemoteList::default() }));
    tx.put::<AnnouncedDevices>(&alice, &Json(Announced { stream_id: 3, ..Announced::default() }));
    let (family, device) = ([7; 32], "ONE".into());
    tx.put::<TokenFamilies>(&family, &Json(TokenFamily { user: alice.clone(), device }));
    store(&old.path().join("data/database")).commit(tx).await.unwrap();
    let kept = async |backup: &Path| {
        let store = store(&backup.join("database"));
        let reader = store.read();
        let list = reader.get::<RemoteLists>(&carol).await.unwrap().unwrap().0;
        let announced = reader.get::<AnnouncedDevices>(&alice).await.unwrap().unwrap().0;
        let is_marked = reader.get::<Meta>(&"restored".to_owned()).await.unwrap().is_some();
        let is_family = reader.get::<TokenFamilies>(&family).await.unwrap().is_some();
        (list.stale, announced.stream_id, is_marked, is_family)
    };
    let back_up = async |of: &Path, name: &str| {
        let backup = aside.path().join(name);
        run(of, &["admin", "backup", backup.to_str().unwrap()]).await.unwrap();
        backup
    };

    let server = start(old.path()).await;
    let before = back_up(old.path(), "before").await;
    server.stop().await;
    std::fs::write(new.path().join("chappe.toml"), configuration(&new.path().join("data"))).unwrap();
    run(new.path(), &["restore", before.to_str().unwrap()]).await.unwrap();
    assert_eq!(kept(&before).await, (false, 3, false, true), "a start alone changes nothing");
    let server = start(new.path()).await;
    let after = back_up(new.path(), "after").await;
    server.stop().await;
    assert_eq!(kept(&after).await, (true, 3 + (1 << 20), false, false), "once, at the first start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_keys_of_before_are_not_given_out_after_a_backup_was_put_back() {
    let (old, new, aside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(old.path()).await;
    let http = Http::to(server.addresses()[0]);
    let (_, session) = sign_up(old.path(), &http).await;
    let [token, device] = ["access_token", "device_id"].map(|field| session[field].as_str().unwrap());
    let post = async |http: &Http, path: &str, body: Value| {
        let path = format!("/_matrix/client/v3/keys/{path}");
        let (status, said) = http.call(Method::POST, &path, Some(token), body).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        said
    };
    let keys = json!({
        "signed_curve25519:A": { "key": "a2V5", "signatures": {} },
        "signed_curve25519:B": { "key": "a2V6", "signatures": {} },
    });
    let claim = json!({ "one_time_keys": { "@alice:hs1": { device: "signed_curve25519" } } });
    let claimed = async |http: &Http| {
        let said = post(http, "claim", claim.clone()).await;
        let given = said["one_time_keys"]["@alice:hs1"][device].as_object().cloned().unwrap_or_default();
        given.keys().cloned().collect::<Vec<_>>()
    };
    let upload = json!({ "one_time_keys": keys });
    post(&http, "upload", upload.clone()).await;
    let (_, synced) = http.get("/_matrix/client/v3/sync", Some(token)).await;
    let since = synced["next_batch"].as_str().unwrap();
    let backup = aside.path().join("backup");
    run(old.path(), &["admin", "backup", backup.to_str().unwrap()]).await.unwrap();
    assert_eq!(claimed(&http).await, ["signed_curve25519:A"]);
    server.stop().await;

    std::fs::write(new.path().join("chappe.toml"), configuration(&new.path().join("data"))).unwrap();
    run(new.path(), &["restore", backup.to_str().unwrap()]).await.unwrap();
    let server = start(new.path()).await;
    let http = Http::to(server.addresses()[0]);
    let path = format!("/_matrix/client/v3/sync?since={since}&timeout=0");
    let (_, synced) = http.get(&path, Some(token)).await;
    assert_eq!(synced["device_one_time_keys_count"]["signed_curve25519"], 0, "{synced}");
    assert!(claimed(&http).await.is_empty());
    let said = post(&http, "upload", upload).await;
    assert_eq!(said["one_time_key_counts"]["signed_curve25519"], 2);
    assert_eq!(claimed(&http).await, ["signed_curve25519:A"]);
    server.stop().await;
}
