//! Previews over the real client: a web site on loopback, and what hostile ones do.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use chappe_kv::{Db, Memory};
use chappe_store::{Direction, Store, media::PreviewsByAge};
use chappe_world::{Outbound, World};
use image::{DynamicImage, ImageFormat};
use parking_lot::Mutex;
use ruma::{ServerName, server_name};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    Config, Deps, Error, Media, Previews, Properties, Reach, RemoteContent, RemoteError, RemoteMedia,
};

struct NoServers;

#[async_trait]
impl RemoteMedia for NoServers {
    async fn download(
        &self,
        _: &ServerName,
        _: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        Err(RemoteError::NotFound)
    }
}

/// What a site does with a request.
#[derive(Clone)]
enum Answer {
    /// The bytes of an answer, head included, then the connection closes.
    Once(Vec<u8>),
    /// These bytes, then the same piece for ever, with a pause before each.
    Endless(Vec<u8>, Vec<u8>, Duration),
}

/// A web site on some address of loopback.
#[derive(Clone, Default)]
struct Site {
    pages: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Site {
    #[expect(clippy::disallowed_methods, reason = "a test's server is outside the world")]
    async fn open(host: &str) -> (Self, String) {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let site = Self::default();
        let served = site.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Relaxed);
                tokio::spawn(served.clone().answer(stream));
            }
        });
        (site, base)
    }

    async fn answer(self, mut stream: tokio::net::TcpStream) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.asked.lock().push(head);
        let answer = self.pages.lock().get(&path).cloned();
        match answer {
            Some(Answer::Once(bytes)) => drop(stream.write_all(&bytes).await),
            Some(Answer::Endless(start, piece, pause)) => {
                let mut sent = stream.write_all(&start).await;
                while sent.is_ok() {
                    tokio::time::sleep(pause).await;
                    sent = stream.write_all(&piece).await;
                }
            }
            None => drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await),
        }
    }

    fn put(&self, path: &str, answer: Answer) {
        self.pages.lock().insert(path.to_owned(), answer);
    }

    fn page(&self, path: &str, kind: &str, body: &[u8]) {
        self.put(path, Answer::Once(found(kind, body)));
    }

    fn moved(&self, path: &str, to: &str) {
        let head = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\n\r\n");
        self.put(path, Answer::Once(head.into_bytes()));
    }
}

fn found(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn without_end(kind: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n").into_bytes()
}

struct House {
    media: Media,
    site: Site,
    base: String,
    folder: tempfile::TempDir,
}

/// Previews of what lies on 127.0.0.1, and of nothing else that is not public.
fn rules() -> Previews {
    Previews {
        enabled: true,
        ports: Vec::new(),
        allowed_ranges: vec!["127.0.0.1/32".parse().unwrap()],
        timeout_seconds: 30,
        ..Previews::default()
    }
}

async fn house(previews: Previews) -> House {
    let folder = tempfile::tempdir().unwrap();
    // The ranges of other connections are open wide, and must not matter.
    let outbound = Outbound {
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        system_authorities: false,
        ..Outbound::default()
    };
    let deps = Deps {
        store: Store::new(Db::new(Memory::default())),
        world: World::real(&outbound).unwrap(),
        server_name: server_name!("a.test").to_owned(),
        directory: folder.path().to_owned(),
        remote: Arc::new(NoServers),
        inspector: None,
    };
    let config = Config { max_pixels: 1_000_000, previews, ..Config::default() };
    let (site, base) = Site::open("127.0.0.1").await;
    House { media: Media::open(deps, config).await.unwrap(), site, base, folder }
}

impl House {
    async fn preview(&self, path: &str) -> Result<Properties, Error> {
        let address = self.media.web_address(&format!("{}{path}", self.base))?;
        let preview = self.media.preview(&address);
        tokio::time::timeout(Duration::from_mins(2), preview).await.expect("an answer in time")
    }

    async fn failed(&self, path: &str) {
        let outcome = self.preview(path).await;
        assert!(matches!(outcome, Err(Error::PageFailed)), "{path}: {outcome:?}");
    }

    fn files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(self.folder.path())
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

fn media_id(properties: &Properties) -> String {
    properties["og:image"].as_str().unwrap().strip_prefix("mxc://a.test/").unwrap().to_owned()
}

#[tokio::test]
async fn a_page_says_what_it_is_and_its_picture_is_kept_here() {
    let house = house(rules()).await;
    let html = "<title>T</title><meta property=og:title content='Le titre'><meta property=og:image content=/p>\
                <meta property=og:image:width content=9999><meta property=og:image:alt content=Alt>";
    house.site.page("/x?y", "text/html; charset=utf-8", html.as_bytes());
    house.site.page("/p", "text/plain", &png(30, 20));
    house.site.moved("/moved", "/x?y");
    let properties = house.preview("/moved#part").await.unwrap();
    let id = media_id(&properties);
    let size = png(30, 20).len();
    assert_eq!(
        json!(properties),
        json!({
            "og:title": "Le titre", "og:image": format!("mxc://a.test/{id}"), "og:image:alt": "Alt",
            "og:image:type": "image/png", "og:image:width": 30, "og:image:height": 20, "matrix:image:size": size,
        })
    );
    let own = server_name!("a.test");
    let picture = house.media.content(own, &id, Reach::Local, Duration::ZERO).await.unwrap();
    assert_eq!((picture.content_type.as_deref(), picture.size), (Some("image/png"), size as u64));
    let asked = house.site.asked.lock().join("").to_ascii_lowercase();
    assert!(asked.contains("accept-language: fr, en\r\n") && asked.contains("accept-encoding: identity\r\n"));
    for private in ["cookie", "referer", "authorization", "a.test", "#part"] {
        assert!(!asked.contains(private), "{private}: {asked}");
    }
}

#[tokio::test]
async fn a_page_is_asked_once_for_all_and_a_failed_one_not_at_once_again() {
    let house = house(rules()).await;
    house.site.page("/x", "text/html", b"<title>T</title>");
    let all = (0..20).map(|_| house.preview("/x"));
    for outcome in futures_util::future::join_all(all).await {
        assert_eq!(outcome.unwrap()["og:title"], "T");
    }
    assert_eq!(house.site.connections.load(Relaxed), 1);
    for outcome in futures_util::future::join_all((0..20).map(|_| house.preview("/none"))).await {
        assert!(matches!(outcome, Err(Error::PageFailed)));
    }
    assert_eq!(house.site.connections.load(Relaxed), 2);
    // Whoever asks may go away: the page is fetched all the same.
    house.site.page("/left", "text/html", b"<title>L</title>");
    let address = house.media.web_address(&format!("{}/left", house.base)).unwrap();
    drop(futures_util::FutureExt::now_or_never(house.media.preview(&address)));
    assert_eq!(house.preview("/left").await.unwrap()["og:title"], "L");
    assert_eq!(house.site.connections.load(Relaxed), 3);
}

#[tokio::test]
async fn nothing_leads_inside() {
    let house = house(rules()).await;
    let (inside, secret) = Site::open("127.0.0.2").await;
    inside.page("/", "text/html", b"<title>secret</title>");
    inside.page("/p", "image/png", &png(3, 3));
    let port = secret.rsplit(':').next().unwrap();
    // The same machine, written in other ways.
    for (number, address) in (0..).zip([
        secret.clone(),
        format!("http://0x7f000002:{port}/"),
        format!("http://2130706434:{port}/"),
        format!("http://0177.0.0.2:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("http://[64:ff9b::7f00:2]:{port}/"),
        format!("http://[2002:7f00:2::]:{port}/"),
    ]) {
        let asked = house.media.web_address(&address).unwrap();
        assert!(matches!(house.media.preview(&asked).await, Err(Error::PageFailed)), "{address}");
        house.site.moved(&format!("/moved{number}"), &address);
        house.failed(&format!("/moved{number}")).await;
    }
    assert_eq!(house.site.connections.load(Relaxed), 7, "each was asked for");
    for (path, to) in
        [("/a", "file:///etc/passwd"), ("/b", "ftp://127.0.0.1/"), ("/c", "http://u:p@127.0.0.1/")]
    {
        house.site.moved(path, to);
        house.failed(path).await;
    }
    let picture = format!("<title>T</title><meta property=og:image content='{secret}/p'>");
    house.site.page("/picture", "text/html", picture.as_bytes());
    house.site.page(
        "/base",
        "text/html",
        format!("<base href='{secret}'>{}", picture.replace(&secret, "")).as_bytes(),
    );
    house.site.moved("/p-inside", &format!("{secret}/p"));
    house.site.page(
        "/moved-picture",
        "text/html",
        picture.replace(&format!("{secret}/p"), "/p-inside").as_bytes(),
    );
    for path in ["/picture", "/base", "/moved-picture"] {
        assert_eq!(json!(house.preview(path).await.unwrap()), json!({ "og:title": "T" }), "{path}");
    }
    assert_eq!(inside.connections.load(Relaxed), 0);
    assert_eq!(house.files(), 0);
}

#[tokio::test]
async fn redirects_end() {
    let house = house(rules()).await;
    house.site.page("/4", "text/html", b"<title>T</title>");
    for n in 0..4 {
        house.site.moved(&format!("/{n}"), &format!("/{}", n + 1));
    }
    assert!(house.preview("/1").await.is_ok());
    house.failed("/0").await;
    house.site.moved("/round", "/round");
    house.failed("/round").await;
}

#[tokio::test]
async fn long_and_slow_answers_are_not_waited_for() {
    let house = house(Previews { timeout_seconds: 2, max_page_bytes: 100_000, ..rules() }).await;
    // Without end, and fast: the beginning is enough.
    let start = [without_end("text/html"), b"<title>T</title>".to_vec()].concat();
    house.site.put("/endless", Answer::Endless(start.clone(), vec![b'x'; 64 << 10], Duration::ZERO));
    assert_eq!(house.preview("/endless").await.unwrap()["og:title"], "T");
    // Drop by drop.
    house.site.put("/drip", Answer::Endless(start, b"x".to_vec(), Duration::from_millis(100)));
    house.failed("/drip").await;
    house.site.put("/mute", Answer::Endless(Vec::new(), Vec::new(), Duration::from_millis(100)));
    house.failed("/mute").await;
    house.site.put(
        "/heads",
        Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec(), Duration::ZERO),
    );
    house.failed("/heads").await;
    // A picture that never ends costs the picture only.
    house.site.put("/p", Answer::Endless(without_end("image/png"), png(9, 9), Duration::from_millis(50)));
    house.site.page("/page", "text/html", b"<title>T</title><meta property=og:image content=/p>");
    assert_eq!(json!(house.preview("/page").await.unwrap()), json!({ "og:title": "T" }));
    assert_eq!(house.files(), 0);
}

#[tokio::test]
async fn packed_strange_and_broken_answers_do_no_harm() {
    let house = house(rules()).await;
    let packed = |how: &str| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: {how}\r\nconnection: close\r\n\r\n"
        );
        Answer::Once([head.as_bytes(), &[0x1f, 0x8b, 8, 0][..]].concat())
    };
    for how in ["gzip", "br", "deflate, gzip"] {
        let path = format!("/{}", how.replace(' ', "%20"));
        house.site.put(&path, packed(how));
        house.failed(&path).await;
    }
    house.site.put("/nothing", Answer::Once(b"SSH-2.0-OpenSSH\r\n".to_vec()));
    house.failed("/nothing").await;
    house.site.put(
        "/error",
        Answer::Once(b"HTTP/1.1 500 Oh\r\ncontent-type: text/html\r\n\r\n<title>T</title>".to_vec()),
    );
    house.failed("/error").await;
    let nested = "<div>".repeat(10_000) + "<title>T</title>";
    house.site.page("/nested", "text/html", nested.as_bytes());
    assert_eq!(house.preview("/nested").await.unwrap()["og:title"], "T");
    house.site.page("/latin", "text/html; charset=utf-8", b"<title>\xe9t\xe9</title>");
    assert_eq!(house.preview("/latin").await.unwrap()["og:title"], "\u{fffd}t\u{fffd}");
    house.site.page("/koi", "text/html", b"<meta charset=koi8-r><title>\xcd\xc9\xd2</title>");
    assert_eq!(house.preview("/koi").await.unwrap()["og:title"], "мир");
    for (path, kind) in [("/pdf", "application/pdf"), ("/script", "text/javascript"), ("/odd", "nonsense")] {
        house.site.page(path, kind, b"<title>T</title>");
        assert_eq!(house.preview(path).await.unwrap(), Properties::new(), "{path}");
    }
}

#[tokio::test]
async fn only_real_pictures_of_sensible_size_are_kept() {
    let house = house(Previews { max_image_bytes: 20_000, ..rules() }).await;
    house.site.page("/direct", "image/png", &png(40, 40));
    assert_eq!(house.preview("/direct").await.unwrap()["og:image:width"], 40);
    let files = house.files();
    // A header that promises a giant.
    let bomb = b"GIF89a\xff\xff\xff\xff\x00\x00\x00";
    let long = [png(10, 10), vec![0; 30_000]].concat();
    for (path, bytes) in [
        ("/svg", &b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"[..]),
        ("/html", b"<script>alert(1)</script>"),
        ("/bomb", bomb),
        ("/wide", &png(2_000, 600)),
        ("/long", &long),
        ("/empty", b""),
    ] {
        house.site.page(path, "image/png", bytes);
        let page = format!("<title>T</title><meta property=og:image content={path}>");
        house.site.page(&format!("{path}-page"), "text/html", page.as_bytes());
        assert_eq!(house.preview(path).await.unwrap(), Properties::new(), "{path}");
        let properties = house.preview(&format!("{path}-page")).await.unwrap();
        assert_eq!(json!(properties), json!({ "og:title": "T" }), "{path}");
    }
    assert_eq!(house.files(), files);
}

#[tokio::test]
async fn old_previews_go_and_pictures_that_stay_the_same_keep_their_address() {
    let house = house(Previews { fresh_minutes: 0, keep_days: 0, ..rules() }).await;
    let page = |picture: &str| format!("<title>{picture}</title><meta property=og:image content={picture}>");
    house.site.page("/p", "image/png", &png(5, 5));
    house.site.page("/q", "image/png", &png(6, 6));
    house.site.page("/x", "text/html", page("/p").as_bytes());
    let rows = async || {
        let reader = house.media.0.store.read();
        reader.scan::<PreviewsByAge>(&(), Direction::Forward, 10).await.unwrap().len()
    };
    let there = async |id: &str| {
        let picture = house.media.content(server_name!("a.test"), id, Reach::Local, Duration::ZERO);
        picture.await.is_ok()
    };
    let first = media_id(&house.preview("/x").await.unwrap());
    assert_eq!(media_id(&house.preview("/x").await.unwrap()), first);
    assert_eq!((rows().await, house.files()), (1, 1));
    house.site.page("/x", "text/html", page("/q").as_bytes());
    let second = house.preview("/x").await.unwrap();
    assert_eq!(second["og:title"], Value::from("/q"));
    let second = media_id(&second);
    assert_ne!(second, first);
    assert_eq!((rows().await, house.files()), (2, 2), "who saw the old one may still look at it");
    assert!(there(&first).await && there(&second).await);
    let made = house.media.0.world.now();
    while house.media.0.world.now() == made {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.media.remove_old_previews().await.unwrap(), 2);
    assert!(!there(&first).await && !there(&second).await);
    assert_eq!((rows().await, house.files()), (0, 0));
    assert!(there(&media_id(&house.preview("/x").await.unwrap())).await);
}

#[tokio::test]
async fn without_the_switch_or_the_host_nothing_is_asked() {
    let house = house(Previews { enabled: false, ..rules() }).await;
    assert!(matches!(house.preview("/x").await, Err(Error::PreviewsOff)));
    let hosts = |host: &str| vec![host.to_owned()];
    for previews in [
        Previews { ports: vec![80, 443], ..rules() },
        Previews { denied_hosts: hosts("127.0.0.1"), ..rules() },
        Previews { allowed_hosts: hosts("*.gouv.fr"), ..rules() },
    ] {
        let house = self::house(previews).await;
        assert!(matches!(house.preview("/x").await, Err(Error::HostNotAllowed)));
        assert_eq!(house.site.connections.load(Relaxed), 0);
    }
}

#[tokio::test]
async fn pictures_of_previews_have_so_much_room_and_the_oldest_go() {
    let one = u64::try_from(png(50, 50).len()).unwrap() + (4 << 10);
    let house = house(Previews { space_bytes: one * 5 / 2, ..rules() }).await;
    for name in ["a", "b", "c"] {
        house.site.page(&format!("/{name}.png"), "image/png", &png(50, 50));
    }
    let media = &house.media;
    media.upkeep().await.unwrap();
    let first = media_id(&house.preview("/a.png").await.unwrap());
    let made = media.0.world.now();
    while media.0.world.now() == made {
        tokio::task::yield_now().await;
    }
    let second = media_id(&house.preview("/b.png").await.unwrap());
    assert!(!house.preview("/c.png").await.unwrap().contains_key("og:image"), "there is no room");
    assert_eq!(house.files(), 2);
    media.upkeep().await.unwrap();
    assert!(media.known(server_name!("a.test"), &first).await.unwrap().is_none());
    assert!(media.known(server_name!("a.test"), &second).await.unwrap().is_some());
    assert_eq!(house.files(), 1);
}
