//! A scanner with a daemon of the test's own on loopback.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aes::cipher::StreamCipher;
use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use chappe_kv::{Db, Memory};
use chappe_media::{Media, Reach, RemoteContent, RemoteError, RemoteMedia, Upload};
use chappe_store::Store;
use chappe_world::{Fake, FakeNet, Socket, World};
use futures_util::stream;
use ring::digest::{SHA256, digest};
use ruma::{ServerName, server_name, user_id};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::{Config, Error, Examiner, ExaminerDeps, Scanner, Target};

/// What the daemon takes for a virus.
const VIRUS: &[u8] = b"a virus of these tests";

/// A daemon that speaks clamd's protocol.
struct Daemon {
    port: u16,
    scans: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

/// How the daemon behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    Silent,
    HangsUp,
    Fails,
    /// Takes so many bytes.
    Takes(usize),
}

impl Daemon {
    #[expect(clippy::disallowed_methods, reason = "a test's own daemon")]
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scans = Arc::new(AtomicUsize::new(0));
        let count = scans.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                tokio::spawn(serve(client, manner));
            }
        });
        Self { port, scans, serving }
    }

    fn scans(&self) -> usize {
        self.scans.load(Relaxed)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut client: impl AsyncRead + AsyncWrite + Unpin, manner: Manner) {
    if manner == Manner::HangsUp {
        return;
    }
    let mut command = [0; 10];
    client.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"zINSTREAM\0");
    let mut seen = Vec::new();
    loop {
        let length = client.read_u32().await.unwrap();
        if length == 0 {
            break;
        }
        let mut piece = vec![0; length as usize];
        client.read_exact(&mut piece).await.unwrap();
        seen.extend(piece);
        if matches!(manner, Manner::Takes(most) if seen.len() > most) {
            client.write_all(b"INSTREAM size limit exceeded. ERROR\0").await.unwrap();
            return;
        }
    }
    let answer: &[u8] = match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Fails => b"stream: Can't allocate memory ERROR\0",
        _ if seen.windows(VIRUS.len()).any(|window| window == VIRUS) => b"stream: Test.Virus-1 FOUND\0",
        _ => b"stream: OK\0",
    };
    client.write_all(answer).await.unwrap();
}

/// No other server has anything.
struct NoServers(AtomicUsize);

#[async_trait]
impl RemoteMedia for NoServers {
    async fn download(
        &self,
        _: &ServerName,
        _: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        self.0.fetch_add(1, Relaxed);
        let body = Box::pin(stream::iter([Ok(Bytes::from_static(VIRUS))]));
        Ok(RemoteContent { content_type: None, filename: None, body })
    }
}

struct House {
    scanner: Scanner,
    examiner: Examiner,
    media: Media,
    others: Arc<NoServers>,
    folder: TempDir,
}

async fn house(config: Config) -> House {
    let folder = tempfile::tempdir().unwrap();
    let (store, world) = (Store::new(Db::new(Memory::default())), world());
    let others = Arc::new(NoServers(AtomicUsize::new(0)));
    let deps =
        ExaminerDeps { store: store.clone(), world: world.clone(), folder: folder.path().join("scanner") };
    let examiner = Examiner::open(deps, config).await.unwrap().unwrap();
    let deps = chappe_media::Deps {
        store,
        world,
        server_name: server_name!("a.test").to_owned(),
        directory: folder.path().join("media"),
        remote: others.clone(),
        inspector: Some(Arc::new(examiner.clone())),
    };
    let media = Media::open(deps, chappe_media::Config::default()).await.unwrap();
    let scanner = Scanner::open(examiner.clone(), media.clone(), &folder.path().join("scanner.key")).unwrap();
    House { scanner, examiner, media, others, folder }
}

fn world() -> World {
    World::fake(Fake::new("a.test", 1, &FakeNet::new()))
}

fn with(daemon: &Daemon) -> Config {
    let clamd = Some(format!("127.0.0.1:{}", daemon.port).parse().unwrap());
    Config { clamd, timeout_seconds: 60, ..Config::default() }
}

impl House {
    async fn upload(&self, bytes: &[u8]) -> Target {
        let upload =
            Upload { user: user_id!("@alice:a.test").to_owned(), content_type: None, filename: None };
        let body = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(bytes))]);
        let uri = self.media.upload(upload, body).await.unwrap();
        let (server, id) = uri.parts().unwrap();
        Target::in_clear(server, id)
    }

    /// Uploads a file as clients encrypt it; the body of a request for it.
    async fn upload_encrypted(&self, bytes: &[u8]) -> Value {
        let file = json!({
            "v": "v2", "iv": "AAECAwQFBgcAAAAAAAAAAA",
            "key": { "kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
                "k": "__-_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw" },
            "hashes": { "sha256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
            "url": "mxc://a.test/x",
        });
        let mut body = json!({ "file": file });
        let mut bytes = bytes.to_vec();
        let placeholder = self.scanner.read(body.to_string().as_bytes()).unwrap();
        placeholder.secrets.as_ref().unwrap().cipher().apply_keystream(&mut bytes);
        let target = self.upload(&bytes).await;
        body["file"]["hashes"]["sha256"] = json!(super::attachment::BASE64.encode(digest(&SHA256, &bytes)));
        body["file"]["url"] = json!(format!("mxc://{}/{}", target.server, target.id));
        body
    }

    async fn bytes(&self, target: &Target) -> Result<Vec<u8>, Error> {
        let mut content = self.scanner.content(target, Reach::Anywhere, Duration::ZERO).await?;
        let mut bytes = Vec::new();
        content.file.read_to_end(&mut bytes).await.unwrap();
        Ok(bytes)
    }

    async fn refused(&self, target: &Target) -> Error {
        self.bytes(target).await.expect_err("refused")
    }

    fn read(&self, body: &Value) -> Target {
        self.scanner.read(body.to_string().as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn what_is_clean_is_given_and_scanned_once() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let long = vec![7; 200_000];
    let target = house.upload(&long).await;
    assert!(!house.scanner.is_known(&target));
    assert_eq!(house.bytes(&target).await.unwrap(), long);
    assert!(house.scanner.is_known(&target));
    assert_eq!(house.bytes(&target).await.unwrap(), long);
    assert_eq!(daemon.scans(), 1);
}

#[tokio::test]
async fn many_who_ask_at_a_time_cost_one_scan() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let target = house.upload(b"asked for by many").await;
    let all = futures_util::future::join_all((0..10).map(|_| house.bytes(&target))).await;
    assert!(all.into_iter().all(|bytes| bytes.unwrap() == b"asked for by many"));
    assert_eq!(daemon.scans(), 1);
}

#[tokio::test]
async fn what_is_not_clean_is_refused_and_not_fetched_again() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let remote = Target::in_clear(server_name!("b.test"), "virus");
    assert!(matches!(house.refused(&remote).await, Error::NotClean(_)));
    assert_eq!(house.others.0.load(Relaxed), 1);
    house.media.delete(server_name!("b.test"), "virus").await.unwrap();
    assert!(matches!(house.refused(&remote).await, Error::NotClean(_)));
    assert_eq!((house.others.0.load(Relaxed), daemon.scans()), (1, 1));
}

#[tokio::test]
async fn what_a_verdict_is_about_is_these_bytes() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let target = house.upload(b"harmless").await;
    house.bytes(&target).await.unwrap();
    let mut kept = house.scanner.kept(&target.digest()).unwrap();
    kept.sha256 = [0; 32];
    house.scanner.0.verdicts.insert(target.digest(), kept);
    assert_eq!(house.bytes(&target).await.unwrap(), b"harmless");
    assert_eq!(daemon.scans(), 2);
}

#[tokio::test]
async fn encrypted_files_are_scanned_in_clear_and_given_as_they_are() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let clean = house.upload_encrypted(&[b"x".repeat(100_000), b"harmless".to_vec()].concat()).await;
    let given = house.bytes(&house.read(&clean)).await.unwrap();
    assert_eq!(given.len(), 100_008);
    assert_ne!(given[..8], *b"xxxxxxxx");
    let infected = house.upload_encrypted(&[b"x".repeat(100_000), VIRUS.to_vec()].concat()).await;
    assert!(matches!(house.refused(&house.read(&infected)).await, Error::NotClean(_)));

    let mut wrong = clean.clone();
    wrong["file"]["hashes"]["sha256"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert!(matches!(house.refused(&house.read(&wrong)).await, Error::FailedToDecrypt(_)));
    // Another key is another question.
    let mut other = infected.clone();
    other["file"]["key"]["k"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    house.bytes(&house.read(&other)).await.unwrap();
    assert!(matches!(house.refused(&house.read(&infected)).await, Error::NotClean(_)));
}

#[tokio::test]
async fn bodies_that_say_nothing_of_use_are_refused() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let good = house.upload_encrypted(b"harmless").await;
    let read = |body: &Value| house.scanner.read(body.to_string().as_bytes()).err().unwrap();
    let sealed = json!({ "ciphertext": "AAAA", "mac": "AAAA", "ephemeral": "AAAA" });
    for wrong in [json!([]), json!({}), json!({ "file": 1 }), json!({ "encrypted_body": "x" })] {
        assert!(matches!(read(&wrong), Error::Malformed(_)), "{wrong}");
    }
    let mut both = good.clone();
    both["encrypted_body"] = sealed.clone();
    assert!(matches!(read(&both), Error::Malformed(_)));
    assert!(matches!(house.scanner.read(b"{"), Err(Error::Malformed(_))));
    assert!(matches!(read(&json!({ "encrypted_body": sealed })), Error::BadDecryption));
    for (field, value) in [("v", "v1"), ("iv", "AAAA"), ("url", "https://a.test/x")] {
        let mut wrong = good.clone();
        wrong["file"][field] = json!(value);
        assert!(matches!(read(&wrong), Error::FailedToDecrypt(_) | Error::Malformed(_)), "{field}");
    }
    for (field, value) in [("alg", "A256CBC"), ("k", "secret"), ("k", "AAAA")] {
        let mut wrong = good.clone();
        wrong["file"]["key"][field] = json!(value);
        let error = read(&wrong);
        assert!(matches!(error, Error::FailedToDecrypt(_)), "{field}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_daemon_in_trouble_lets_nothing_through() {
    for manner in [Manner::Silent, Manner::HangsUp, Manner::Fails] {
        let daemon = Daemon::start(manner).await;
        let house = house(Config { timeout_seconds: 1, ..with(&daemon) }).await;
        let target = house.upload(&vec![0; 1 << 20]).await;
        assert!(matches!(house.refused(&target).await, Error::Engine(_)));
        assert!(!house.scanner.is_known(&target), "trouble is no verdict");
    }
    let daemon = Daemon::start(Manner::Honest).await;
    let config = with(&daemon);
    drop(daemon);
    let house = house(config).await;
    let target = house.upload(b"x").await;
    assert!(matches!(house.refused(&target).await, Error::Away(_)));
}

#[tokio::test]
async fn a_daemon_that_comes_back_is_asked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("clamd.ctl");
    let clamd = Some(Socket::Unix(socket.clone()));
    let house = house(Config { clamd, enforce: true, ..Config::default() }).await;
    let target = house.upload(b"harmless").await;
    assert!(matches!(house.refused(&target).await, Error::Away(_)));
    let listener = UnixListener::bind(socket).unwrap();
    let serving = async {
        let (client, _) = listener.accept().await.unwrap();
        serve(client, Manner::Honest).await;
    };
    let (bytes, ()) = tokio::join!(house.bytes(&target), serving);
    assert_eq!(bytes.unwrap(), b"harmless");
}

#[tokio::test]
async fn a_file_that_breaks_scans_is_left_alone_for_a_while() {
    let daemon = Daemon::start(Manner::Fails).await;
    let house = house(Config { enforce: true, ..with(&daemon) }).await;
    let target = house.upload(b"harmless?").await;
    for _ in 0..2 {
        assert!(matches!(house.refused(&target).await, Error::Engine(_)));
    }
    assert_eq!(daemon.scans(), 1);
}

#[tokio::test]
async fn what_is_too_large_to_be_scanned_is_refused() {
    let daemon = Daemon::start(Manner::Takes(1_000)).await;
    let house = house(Config { max_bytes: 2_000, ..with(&daemon) }).await;
    for size in [1_500, 2_500] {
        let target = house.upload(&vec![0; size]).await;
        assert!(matches!(house.refused(&target).await, Error::NotClean(_)));
    }
    assert_eq!(daemon.scans(), 1);
}

#[tokio::test]
async fn kinds_that_are_not_let_through_are_not_scanned() {
    let daemon = Daemon::start(Manner::Honest).await;
    let blocked = vec!["application/vnd.microsoft.portable-executable".to_owned()];
    let house = house(Config { blocked_mimetypes: blocked, ..with(&daemon) }).await;
    let exe = b"MZ\x90\0\x03\0\0\0";
    assert!(matches!(house.refused(&house.upload(exe).await).await, Error::TypeForbidden));
    let body = house.upload_encrypted(exe).await;
    assert!(matches!(house.refused(&house.read(&body)).await, Error::TypeForbidden));
    assert_eq!(daemon.scans(), 0);
    house.bytes(&house.upload(b"text").await).await.unwrap();
}

/// A shell command that is given a file.
fn command(script: &str) -> Config {
    let command = ["/bin/sh", "-c", script, "scan"].map(PathBuf::from).to_vec();
    Config { command, passing_exit_codes: vec![7], timeout_seconds: 60, ..Config::default() }
}

#[tokio::test]
async fn a_command_gets_a_file_in_clear_that_is_gone_afterwards() {
    let script = r#"! grep -q "a virus" "$1""#;
    let house = house(command(script)).await;
    assert_eq!(house.bytes(&house.upload(b"harmless").await).await.unwrap(), b"harmless");
    let body = house.upload_encrypted(VIRUS).await;
    assert!(matches!(house.refused(&house.read(&body)).await, Error::NotClean(_)));
    let files = || std::fs::read_dir(house.folder.path().join("scanner")).unwrap().count();
    assert_eq!(files(), 0);
    // What a crash leaves is removed at the next start.
    std::fs::write(house.folder.path().join("scanner/left"), VIRUS).unwrap();
    let store = Store::new(Db::new(Memory::default()));
    let deps = ExaminerDeps { store, world: world(), folder: house.folder.path().join("scanner") };
    Examiner::open(deps, command(script)).await.unwrap().unwrap();
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn exit_codes_of_the_moment_are_not_kept() {
    let house = house(command(r#"mkdir "$(dirname "$1")/../seen" 2>/dev/null && exit 7; exit 0"#)).await;
    let target = house.upload(b"harmless").await;
    assert!(matches!(house.refused(&target).await, Error::NotClean(_)));
    assert_eq!(house.bytes(&target).await.unwrap(), b"harmless");
}

#[tokio::test]
async fn a_command_that_does_not_end_or_start_lets_nothing_through() {
    for config in [
        Config { timeout_seconds: 1, ..command("exec sleep 60") },
        Config { command: vec!["/nowhere".into()], ..command("") },
        command("kill -9 $$"),
    ] {
        let house = house(config).await;
        let target = house.upload(b"x").await;
        assert!(matches!(house.refused(&target).await, Error::Engine(_) | Error::Away(_)));
        assert_eq!(std::fs::read_dir(house.folder.path().join("scanner")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn what_is_enforced_is_known_by_its_bytes_for_a_while() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(Config { enforce: true, ..with(&daemon) }).await;
    let content = async |target: &Target| {
        house.media.content(&target.server, &target.id, Reach::Local, Duration::ZERO).await.map(drop)
    };
    for _ in 0..2 {
        let target = house.upload(VIRUS).await;
        assert!(matches!(content(&target).await, Err(chappe_media::Error::NotClean)));
        assert!(matches!(house.refused(&target).await, Error::NotClean(_)));
    }
    let clean = house.upload(b"harmless").await;
    content(&clean).await.unwrap();
    house.bytes(&clean).await.unwrap();
    assert_eq!(daemon.scans(), 2, "each content once");
    house.examiner.sweep().await.unwrap();
    content(&clean).await.unwrap();
    assert_eq!(daemon.scans(), 2);
}

#[tokio::test]
async fn another_section_holds_at_once_and_voids_what_was_thought() {
    let daemon = Daemon::start(Manner::Honest).await;
    let house = house(with(&daemon)).await;
    let (target, virus) = (house.upload(b"%PDF-1.7 harmless").await, house.upload(VIRUS).await);
    let content = async |target: &Target| {
        house.media.content(&target.server, &target.id, Reach::Local, Duration::ZERO).await.map(drop)
    };
    house.bytes(&target).await.unwrap();
    house.examiner.reconfigure(with(&daemon));
    house.bytes(&target).await.unwrap();
    assert_eq!(daemon.scans(), 1, "it says the same");
    content(&virus).await.unwrap();

    let blocked_mimetypes = vec!["application/pdf".to_owned()];
    house.examiner.reconfigure(Config { blocked_mimetypes, enforce: true, ..with(&daemon) });
    assert!(!house.scanner.is_known(&target));
    house.refused(&target).await;
    assert!(matches!(content(&virus).await, Err(chappe_media::Error::NotClean)));
    house.examiner.reconfigure(Config { max_bytes: 1, ..with(&daemon) });
    assert!(matches!(house.refused(&target).await, Error::NotClean(_)), "too large");
    house.examiner.reconfigure(with(&daemon));
    house.bytes(&target).await.unwrap();
}

#[tokio::test]
async fn old_verdicts_count_no_more() {
    let house = house(Config { enforce: true, enforced_days: 1, ..command("exit 0") }).await;
    let target = house.upload(b"harmless").await;
    let sha256 = {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, b"harmless").as_ref());
        hash
    };
    let kept = async || house.examiner.verdict(&sha256).await.unwrap();
    house.media.content(&target.server, &target.id, Reach::Local, Duration::ZERO).await.unwrap();
    assert!(kept().await.is_some());
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(25)).await;
    house.examiner.sweep().await.unwrap();
    assert!(kept().await.is_none());
}
