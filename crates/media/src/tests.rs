//! Media over the memory engine and a temporary folder.

use std::{
    convert::Infallible,
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chappe_kv::{Db, Memory};
use chappe_store::{Store, Tx, media::Media as Table};
use chappe_world::{Fake, FakeNet, World};
use futures_util::stream;
use image::{DynamicImage, ImageFormat};
use ruma::{ServerName, server_name, user_id};
use tokio::io::AsyncReadExt;

use crate::{
    Config, Content, Deletion, Deps, Error, Media, Method, Reach, RemoteContent, RemoteError, RemoteMedia,
    Upload, Wanted,
};

/// Another server that has the medium `there` and counts how often it is asked.
#[derive(Default)]
struct Other(AtomicUsize);

#[async_trait]
impl RemoteMedia for Other {
    async fn download(
        &self,
        _: &ServerName,
        media_id: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        self.0.fetch_add(1, Relaxed);
        if media_id != "there" {
            return Err(RemoteError::NotFound);
        }
        let body = Box::pin(stream::iter([Ok(Bytes::from_static(b"far away"))]));
        Ok(RemoteContent { content_type: Some("text/plain".to_owned()), filename: None, body })
    }
}

struct House {
    media: Media,
    other: Arc<Other>,
    folder: tempfile::TempDir,
}

async fn house(config: Config) -> House {
    let folder = tempfile::tempdir().unwrap();
    let other = Arc::new(Other::default());
    let deps = Deps {
        store: Store::new(Db::new(Memory::default())),
        world: World::fake(Fake::new("a.test", 1, &FakeNet::new())),
        server_name: server_name!("a.test").to_owned(),
        directory: folder.path().to_owned(),
        remote: other.clone(),
    };
    House { media: Media::open(deps, config).await.unwrap(), other, folder }
}

fn alice(content_type: &str) -> Upload {
    Upload {
        user: user_id!("@alice:a.test").to_owned(),
        content_type: Some(content_type.to_owned()),
        filename: Some("x.txt".to_owned()),
    }
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))])
}

async fn bytes(mut content: Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    content.file.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, content.size);
    bytes
}

async fn get(media: &Media, server: &str, id: &str) -> Result<Content, Error> {
    media.content(server.try_into().unwrap(), id, Reach::Anywhere, Duration::ZERO).await
}

#[tokio::test]
async fn what_was_uploaded_comes_back() {
    let House { media, .. } = &house(Config::default()).await;
    let uri = media.upload(alice("text/plain"), body(b"hello")).await.unwrap();
    let content = get(media, "a.test", uri.media_id().unwrap()).await.unwrap();
    assert_eq!(content.content_type.as_deref(), Some("text/plain"));
    assert_eq!(content.filename.as_deref(), Some("x.txt"));
    assert_eq!(bytes(content).await, b"hello");
}

#[tokio::test]
async fn too_much_is_refused_and_leaves_nothing() {
    let house = house(Config { max_upload_bytes: 4, ..Config::default() }).await;
    let refused = house.media.upload(alice("text/plain"), body(b"hello")).await;
    assert!(matches!(refused, Err(Error::TooLarge)));
    let unfinished = std::fs::read_dir(house.folder.path().join("unfinished")).unwrap();
    assert_eq!(unfinished.count(), 0);
}

#[tokio::test]
async fn strange_ids_are_not_found() {
    let House { media, .. } = &house(Config::default()).await;
    for id in ["../../etc/passwd", "", "a/b", "a\0", "é", &"x".repeat(300), "nothing"] {
        assert!(matches!(get(media, "a.test", id).await, Err(Error::NotFound)), "{id}");
    }
}

#[tokio::test]
async fn an_address_made_ahead_is_its_makers_and_used_once() {
    let House { media, .. } = &house(Config { pending_per_user: 1, ..Config::default() }).await;
    let created = media.create(user_id!("@alice:a.test")).await.unwrap();
    let id = created.uri.media_id().unwrap();
    assert!(matches!(media.create(user_id!("@alice:a.test")).await, Err(Error::TooManyPending)));
    assert!(matches!(get(media, "a.test", id).await, Err(Error::NotYetUploaded)));
    let bob = Upload { user: user_id!("@bob:a.test").to_owned(), ..alice("text/plain") };
    assert!(matches!(media.upload_to(id, bob, body(b"x")).await, Err(Error::NotYours)));
    media.upload_to(id, alice("text/plain"), body(b"now")).await.unwrap();
    let again = media.upload_to(id, alice("text/plain"), body(b"then")).await;
    assert!(matches!(again, Err(Error::AlreadyUploaded)));
    assert_eq!(bytes(get(media, "a.test", id).await.unwrap()).await, b"now");
    assert!(media.create(user_id!("@alice:a.test")).await.is_ok());
}

#[tokio::test]
async fn media_of_other_servers_are_fetched_once() {
    let house = house(Config::default()).await;
    for _ in 0..2 {
        let content = get(&house.media, "b.test", "there").await.unwrap();
        assert_eq!(bytes(content).await, b"far away");
    }
    assert_eq!(house.other.0.load(Relaxed), 1);
    assert!(matches!(get(&house.media, "b.test", "gone").await, Err(Error::NotFound)));
    let local = house.media.content(server_name!("b.test"), "there", Reach::Local, Duration::ZERO).await;
    assert!(matches!(local, Err(Error::NotFound)));
}

#[tokio::test]
async fn thumbnails_are_made_of_pictures_and_of_nothing_else() {
    let House { media, .. } = &house(Config { max_pixels: 1_000_000, ..Config::default() }).await;
    let picture = |width, height| {
        let mut png = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(width, height).write_to(&mut png, ImageFormat::Png).unwrap();
        png.into_inner()
    };
    let wanted = Wanted { width: 90, height: 90, method: Method::Crop };
    let make = async |bytes: Vec<u8>| {
        let uri = media.upload(alice("image/png"), body(&bytes)).await.unwrap();
        let id = uri.media_id().unwrap().to_owned();
        media.thumbnail(server_name!("a.test"), &id, wanted, Reach::Local, Duration::ZERO).await
    };
    let thumbnail = bytes(make(picture(400, 200)).await.unwrap()).await;
    let thumbnail = image::load_from_memory(&thumbnail).unwrap();
    assert_eq!((thumbnail.width(), thumbnail.height()), (96, 96));
    let small = picture(10, 10);
    assert_eq!(bytes(make(small.clone()).await.unwrap()).await, small);
    assert!(matches!(make(picture(2_000, 1_000)).await, Err(Error::NoThumbnail)));
    assert!(matches!(make(b"<svg/>".to_vec()).await, Err(Error::NoThumbnail)));
    // Strips, which would be giants if they were blown up before they are cut.
    for strip in [picture(200_000, 1), picture(1, 200_000)] {
        let thumbnail = image::load_from_memory(&bytes(make(strip).await.unwrap()).await).unwrap();
        assert_eq!((thumbnail.width(), thumbnail.height()), (96, 96));
    }
}

#[tokio::test]
async fn quarantine_holds_for_bytes_wherever_they_come_from() {
    let house = house(Config::default()).await;
    let (media, root) = (&house.media, user_id!("@root:a.test"));
    let own = server_name!("a.test");
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    let same = media.upload(alice("text/plain"), body(b"far away")).await.unwrap();
    let id = same.media_id().unwrap();
    assert!(media.quarantine(own, id, root).await.unwrap());
    for (server, id) in [("a.test", id), ("b.test", "there")] {
        assert!(matches!(get(media, server, id).await, Err(Error::NotFound)), "{server}");
        let wanted = Wanted { width: 9, height: 9, method: Method::Crop };
        let thumbnail =
            media.thumbnail(server.try_into().unwrap(), id, wanted, Reach::Anywhere, Duration::ZERO);
        assert!(matches!(thumbnail.await, Err(Error::NotFound)), "{server}");
    }
    // Deleted and fetched anew, the bytes are the same.
    media.delete(server_name!("b.test"), "there").await.unwrap();
    assert!(matches!(get(media, "b.test", "there").await, Err(Error::NotFound)));
    assert_eq!(house.other.0.load(Relaxed), 2);
    media.unquarantine(own, id).await.unwrap();
    assert_eq!(bytes(get(media, "b.test", "there").await.unwrap()).await, b"far away");
}

#[tokio::test]
async fn what_was_stored_before_hashes_were_kept_is_known_by_its_bytes_too() {
    let House { media, .. } = &house(Config::default()).await;
    let own = server_name!("a.test");
    let upload = async || {
        let uri = media.upload(alice("text/plain"), body(b"bad")).await.unwrap();
        uri.media_id().unwrap().to_owned()
    };
    let (old, new) = (upload().await, upload().await);
    let key = (own.to_owned(), old.clone());
    let mut medium = media.0.store.read().get::<Table>(&key).await.unwrap().unwrap();
    medium.0.sha256 = None;
    let mut tx = Tx::new();
    tx.put::<Table>(&key, &medium);
    media.0.store.commit(tx).await.unwrap();
    media.quarantine(own, &new, user_id!("@root:a.test")).await.unwrap();
    assert!(matches!(get(media, "a.test", &old).await, Err(Error::NotFound)));
}

#[tokio::test(start_paused = true)]
async fn media_that_nobody_asks_for_are_deleted_and_others_stay() {
    let house = house(Config::default()).await;
    let media = &house.media;
    let asked = media.upload(alice("text/plain"), body(b"asked for")).await.unwrap();
    let kept = media.upload(alice("text/plain"), body(b"a picture")).await.unwrap();
    let idle = media.upload(alice("text/plain"), body(b"idle")).await.unwrap();
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    let now = media.0.world.now();
    tokio::time::advance(Duration::from_hours(2)).await;
    bytes(get(media, "a.test", asked.media_id().unwrap()).await.unwrap()).await;
    media.flush_seen().await.unwrap();
    let which = Deletion { before: now + 3_600_000, larger_than: 0, kept: [kept.to_string()].into() };
    assert_eq!(media.delete_own(&which).await.unwrap(), [idle.media_id().unwrap()]);
    assert_eq!(media.purge_remote(now + 3_600_000).await.unwrap(), 1);
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    assert_eq!(house.other.0.load(Relaxed), 2, "fetched again");
    let left = media.of_user(user_id!("@alice:a.test")).await.unwrap();
    assert_eq!(left.len(), 2);
    let usage = media.usage(0, u64::MAX).await.unwrap();
    assert_eq!(usage[user_id!("@alice:a.test")].count, 2);
}
