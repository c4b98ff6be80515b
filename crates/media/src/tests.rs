//! Media over the memory engine and a temporary folder.

mod copies;
mod limits;

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
use chappe_store::{
    EventNum, RoomNid, Store, Tx,
    media::{Media as Table, MediaUnused, MediaUses},
};
use chappe_world::{Fake, FakeNet, World};
use futures_util::{FutureExt, StreamExt, stream};
use image::{DynamicImage, ImageFormat};
use ruma::{ServerName, server_name, user_id};
use tokio::io::AsyncReadExt;

use crate::{
    Config, Content, Deletion, Deps, Error, Media, Method, Reach, RemoteContent, RemoteError, RemoteMedia,
    Upload, Wanted, animation::tests::gif,
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

/// Another server with media of ten bytes each, which it gives only when it is let.
struct Slow {
    asked: AtomicUsize,
    open: tokio::sync::Semaphore,
}

#[async_trait]
impl RemoteMedia for Slow {
    async fn download(
        &self,
        _: &ServerName,
        _: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        self.asked.fetch_add(1, Relaxed);
        self.open.acquire().await.unwrap().forget();
        let body = Box::pin(stream::iter([Ok(Bytes::from_static(b"ten bytes."))]));
        Ok(RemoteContent { content_type: None, filename: None, body })
    }
}

struct House {
    media: Media,
    other: Arc<Other>,
    folder: tempfile::TempDir,
}

async fn house(config: Config) -> House {
    let (folder, other) = (tempfile::tempdir().unwrap(), Arc::new(Other::default()));
    House { media: media(&folder, other.clone(), config).await, other, folder }
}

async fn media(folder: &tempfile::TempDir, remote: Arc<dyn RemoteMedia>, config: Config) -> Media {
    let deps = Deps {
        store: Store::new(Db::new(Memory::default())),
        world: World::fake(Fake::new("a.test", 1, &FakeNet::new())),
        server_name: server_name!("a.test").to_owned(),
        directory: folder.path().to_owned(),
        remote,
        inspector: None,
    };
    Media::open(deps, config).await.unwrap()
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

#[tokio::test(start_paused = true)]
async fn a_medium_is_as_old_as_its_address() {
    let House { media, .. } = &house(Config::default()).await;
    let created = media.create(user_id!("@alice:a.test")).await.unwrap();
    let (id, made) = (created.uri.media_id().unwrap(), media.0.world.now());
    tokio::time::advance(Duration::from_mins(5)).await;
    media.upload_to(id, alice("text/plain"), body(b"late")).await.unwrap();
    let info = media.info(server_name!("a.test"), id).await.unwrap().unwrap();
    assert_eq!(info.medium.created, made, "events may have named it since then");
    media.delete(server_name!("a.test"), id).await.unwrap();
    assert!(media.of_user(user_id!("@alice:a.test")).await.unwrap().is_empty());
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
    let wanted = Wanted { width: 90, height: 90, method: Method::Crop, animated: false };
    let make = async |bytes: Vec<u8>| {
        let uri = media.upload(alice("image/png"), body(&bytes)).await.unwrap();
        let id = uri.media_id().unwrap().to_owned();
        media
            .thumbnail(server_name!("a.test"), &id, wanted, (Reach::Local, "@alice:a.test"), Duration::ZERO)
            .await
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
        let wanted = Wanted { width: 9, height: 9, method: Method::Crop, animated: false };
        let thumbnail = media.thumbnail(
            server.try_into().unwrap(),
            id,
            wanted,
            (Reach::Anywhere, "@alice:a.test"),
            Duration::ZERO,
        );
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
    let users: Vec<_> = usage.keys().cloned().chain(["@nobody:hs1".try_into().unwrap()]).collect();
    let bytes: Vec<u64> = usage.values().map(|usage| usage.bytes).chain([0]).collect();
    assert_eq!(media.bytes_of_all(&users).await.unwrap(), bytes);
    assert_eq!(usage[user_id!("@alice:a.test")].count, 2);
}

#[tokio::test]
async fn thumbnails_move_only_for_those_who_ask() {
    let house = house(Config::default()).await;
    let media = &house.media;
    let make = async |bytes: &[u8], animated: bool| {
        let uri = media.upload(alice("image/gif"), body(bytes)).await.unwrap();
        let id = uri.media_id().unwrap().to_owned();
        thumbnail(media, &id, animated).await
    };
    let moving = gif(200, 200, 3);
    let (kind, bytes) = make(&moving, true).await;
    assert_eq!((kind.as_str(), moves(&bytes)), ("image/webp", true));
    for small in [moving, gif(20, 20, 3)] {
        let (kind, bytes) = make(&small, false).await;
        assert_ne!(kind, "image/gif");
        assert!(!moves(&bytes));
    }
    let small = gif(20, 20, 3);
    assert_eq!(make(&small, true).await, ("image/gif".to_owned(), small), "small enough as it is");
    let still = gif(20, 20, 1);
    assert_eq!(make(&still, false).await, ("image/gif".to_owned(), still));
}

#[tokio::test]
async fn a_picture_that_does_not_move_has_one_thumbnail_for_all() {
    let house = house(Config::default()).await;
    let uri = house.media.upload(alice("image/gif"), body(&gif(200, 200, 1))).await.unwrap();
    let id = uri.media_id().unwrap();
    let first = thumbnail(&house.media, id, true).await;
    assert_eq!(thumbnail(&house.media, id, false).await, first);
    assert_eq!(thumbnail(&house.media, id, true).await, first);
    assert_eq!(files(house.folder.path()), 2);
    house.media.delete(server_name!("a.test"), id).await.unwrap();
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test]
async fn a_photo_is_put_the_right_way_up() {
    let house = house(Config::default()).await;
    let mut jpeg = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(1_000, 500).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    // Held sideways: orientation 6 of Exif.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let jpeg = jpeg.into_inner();
    let jpeg = [&jpeg[..2], &b"\xff\xe1"[..], &length[..], &exif[..], &jpeg[2..]].concat();
    let uri = house.media.upload(alice("image/jpeg"), body(&jpeg)).await.unwrap();
    let wanted = Wanted { width: 300, height: 200, method: Method::Scale, animated: false };
    let (own, id) = (server_name!("a.test"), uri.media_id().unwrap());
    let made = house
        .media
        .thumbnail(own, id, wanted, (Reach::Local, "@alice:a.test"), Duration::ZERO)
        .await
        .unwrap();
    let made = image::load_from_memory(&bytes(made).await).unwrap();
    assert_eq!((made.width(), made.height()), (120, 240));
}

async fn thumbnail(media: &Media, id: &str, animated: bool) -> (String, Vec<u8>) {
    let wanted = Wanted { width: 90, height: 90, method: Method::Crop, animated };
    let made = media
        .thumbnail(server_name!("a.test"), id, wanted, (Reach::Local, "@alice:a.test"), Duration::ZERO)
        .await
        .unwrap();
    (made.content_type.clone().unwrap(), bytes(made).await)
}

fn moves(bytes: &[u8]) -> bool {
    crate::animation::moves(bytes, crate::picture::seen(bytes, u64::MAX).unwrap())
}

fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn who_hangs_up_leaves_nothing_behind() {
    let house = house(Config::default()).await;
    let endless = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]).chain(stream::pending());
    let upload = house.media.upload(alice("text/plain"), endless);
    assert!(tokio::time::timeout(Duration::from_millis(100), upload).await.is_err());
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_keeps_no_place_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: tokio::sync::Semaphore::new(0) });
    let config = Config { remote_at_once: 3, remote_at_once_per_server: 2, ..Config::default() };
    let media = &media(&folder, slow.clone(), config).await;
    let asks =
        |server: &'static str| (0..4).map(move |n| async move { get(media, server, &n.to_string()).await });
    let all = futures_util::future::join_all(asks("b.test").chain(asks("c.test")));
    let released = async {
        tokio::task::yield_now().await;
        assert_eq!(slow.asked.load(Relaxed), 3, "two of one server, and one more");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(slow.asked.load(Relaxed), 3);
        slow.open.add_permits(3);
    };
    let (outcomes, ()) = tokio::join!(all, released);
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Busy))).count();
    let there = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((there, busy), (3, 5));
}

#[tokio::test]
async fn a_user_has_so_many_fetched_at_a_time() {
    let House { media, .. } = &house(Config { remote_at_once_per_user: 1, ..Config::default() }).await;
    let place = media.place_for(user_id!("@alice:a.test")).await.unwrap();
    media.place_for(user_id!("@bob:a.test")).await.unwrap();
    assert!(media.place_for(user_id!("@alice:a.test")).now_or_never().is_none());
    drop(place);
    media.place_for(user_id!("@alice:a.test")).await.unwrap();
}

#[tokio::test]
async fn what_expired_events_named_goes_unless_another_event_names_it() {
    let house = house(Config::default()).await;
    let (media, here, there) = (&house.media, server_name!("a.test"), server_name!("b.test"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let uploaded = media.upload(alice("text/plain"), body(b"x")).await.unwrap();
        ids.push(uploaded.media_id().unwrap().to_owned());
    }
    get(media, "b.test", "there").await.unwrap();
    let mut tx = Tx::new();
    for id in &ids[..2] {
        tx.put::<MediaUnused>(&(here.to_owned(), id.clone()), &());
    }
    tx.put::<MediaUnused>(&(there.to_owned(), "there".to_owned()), &());
    tx.put::<MediaUnused>(&(there.to_owned(), "never fetched".to_owned()), &());
    tx.put::<MediaUses>(&(here.to_owned(), ids[0].clone(), RoomNid(1), EventNum(2)), &());
    media.0.store.commit(tx).await.unwrap();
    assert_eq!((media.remove_unnamed().await.unwrap(), media.removed_unnamed()), (2, 2));
    for (id, kept) in ids.iter().zip([true, false, true]) {
        assert_eq!(media.info(here, id).await.unwrap().is_some(), kept, "{id}");
    }
    assert!(!media.is_kept(there, "there").await.unwrap());
    assert_eq!(media.remove_unnamed().await.unwrap(), 0, "nothing is looked at twice");
}

#[tokio::test]
async fn what_an_administrator_has_said_something_of_does_not_go() {
    let house = house(Config::default()).await;
    let (media, there, admin) = (&house.media, server_name!("b.test"), user_id!("@admin:a.test"));
    get(media, "b.test", "there").await.unwrap();
    let own = media.upload(alice("text/plain"), body(b"x")).await.unwrap().media_id().unwrap().to_owned();
    media.protect(&own, true).await.unwrap();
    for id in ["there", "not here"] {
        assert!(media.quarantine(there, id, admin).await.unwrap());
    }
    let mut tx = Tx::new();
    tx.put::<MediaUnused>(&(server_name!("a.test").to_owned(), own.clone()), &());
    for id in ["there", "not here"] {
        tx.put::<MediaUnused>(&(there.to_owned(), id.to_owned()), &());
    }
    media.0.store.commit(tx).await.unwrap();
    assert_eq!(media.remove_unnamed().await.unwrap(), 0);
    assert!(media.info(server_name!("a.test"), &own).await.unwrap().is_some());
    for id in ["there", "not here"] {
        assert!(media.info(there, id).await.unwrap().unwrap().medium.quarantined_by.is_some());
        assert!(matches!(get(media, "b.test", id).await, Err(Error::NotFound)));
    }
    assert!(media.0.store.read().scan_all::<MediaUnused>(&()).await.unwrap().is_empty());
}

#[tokio::test]
async fn too_large_media_of_other_servers_are_not_kept() {
    let house = house(Config { max_remote_bytes: 7, ..Config::default() }).await;
    assert!(matches!(get(&house.media, "b.test", "there").await, Err(Error::RemoteTooLarge)));
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn media_of_other_servers_go_when_nobody_asks_or_there_is_no_room() {
    const HOUR: Duration = Duration::from_hours(1);
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: tokio::sync::Semaphore::new(100) });
    let config = Config { remote_unused_days: 2, remote_space_bytes: 35, ..Config::default() };
    let media = &media(&folder, slow.clone(), config).await;
    let own = media.upload(alice("text/plain"), body(&[b'x'; 100])).await.unwrap();
    media.upkeep().await.unwrap();
    let kept = async || {
        let mut kept = String::new();
        for id in ["a", "b", "c", "d"] {
            kept += if media.is_kept(server_name!("b.test"), id).await.unwrap() { id } else { "" };
        }
        kept
    };
    for id in ["a", "b", "c"] {
        get(media, "b.test", id).await.unwrap();
        tokio::time::advance(2 * HOUR).await;
    }
    media.upkeep().await.unwrap();
    assert_eq!(kept().await, "abc", "there is room");
    get(media, "b.test", "a").await.unwrap();
    media.flush_seen().await.unwrap();
    tokio::time::advance(2 * HOUR).await;
    get(media, "b.test", "d").await.unwrap();
    media.upkeep().await.unwrap();
    assert_eq!(kept().await, "acd", "the one unused for longest goes");
    tokio::time::advance(47 * HOUR).await;
    media.upkeep().await.unwrap();
    assert_eq!(kept().await, "d", "two days unused");
    assert!(get(media, "a.test", own.media_id().unwrap()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_ahead_removes_no_media() {
    const HOUR: Duration = Duration::from_hours(1);
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: tokio::sync::Semaphore::new(1) });
    let config = Config { remote_unused_days: 2, ..Config::default() };
    let media = &media(&folder, slow, config).await;
    get(media, "b.test", "a").await.unwrap();
    let is_kept = async || media.is_kept(server_name!("b.test"), "a").await.unwrap();
    media.0.world.set_clock_ahead(100 * HOUR);
    media.upkeep().await.unwrap();
    assert!(is_kept().await);
    tokio::time::advance(HOUR).await;
    media.upkeep().await.unwrap();
    assert!(!is_kept().await, "it was set for good");
}

#[tokio::test(start_paused = true)]
async fn what_came_after_the_freeze_is_for_those_who_are_logged_in() {
    let folder = tempfile::tempdir().unwrap();
    let frozen_since = Some(1_780_000_000_000 + 1_000);
    let other = Arc::new(Other::default());
    let media = &media(&folder, other, Config { frozen_since, ..Config::default() }).await;
    let own = server_name!("a.test");
    let old = media.upload(alice("text/plain"), body(b"old")).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    let new = media.upload(alice("text/plain"), body(b"new")).await.unwrap();
    get(media, "b.test", "there").await.unwrap();
    assert!(media.is_from_before_freeze(own, old.media_id().unwrap()).await.unwrap());
    assert!(!media.is_from_before_freeze(own, new.media_id().unwrap()).await.unwrap());
    for id in ["there", "elsewhere", "../x"] {
        assert!(!media.is_from_before_freeze(server_name!("b.test"), id).await.unwrap(), "{id}");
    }
}
