//! Media over the memory engine and a temporary folder.

mod copies;
mod limits;
mod remote;
mod thumbnails;

use std::{
    convert::Infallible,
    io::Cursor,
    path::Path,
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
use futures_util::{StreamExt, stream};
use image::{DynamicImage, ImageFormat};
use ruma::{ServerName, server_name, user_id};
use tokio::io::AsyncReadExt;

use crate::{
    Config, Content, Deletion, Deps, Error, Media, Method, Reach, RemoteContent, RemoteError, RemoteMedia,
    Upload, Wanted,
};

/// A thumbnail that is small and does not move.
const SMALL: Wanted = Wanted { width: 90, height: 90, method: Method::Crop, animated: false };

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
    let (folder, other) = (tempfile::tempdir().unwrap(), Arc::new(Other::default()));
    House { media: media(&folder, other.clone(), config).await, other, folder }
}

async fn media(folder: &tempfile::TempDir, remote: Arc<dyn RemoteMedia>, config: Config) -> Media {
    open((store(), fake()), folder.path(), remote, config).await
}

/// On a store that may be there already.
async fn open(
    (store, world): (Store, World),
    folder: &Path,
    remote: Arc<dyn RemoteMedia>,
    config: Config,
) -> Media {
    let (server_name, directory) = (server_name!("a.test").to_owned(), folder.to_owned());
    let deps = Deps { store, world, server_name, directory, remote, inspector: None };
    Media::open(deps, config).await.unwrap()
}

fn store() -> Store {
    Store::new(Db::new(Memory::default()))
}

fn fake() -> World {
    World::fake(Fake::new("a.test", 1, &FakeNet::new()))
}

/// A picture of one colour.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
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

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_nothing_behind() {
    let house = house(Config::default()).await;
    let endless = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]).chain(stream::pending());
    let upload = house.media.upload(alice("text/plain"), endless);
    assert!(tokio::time::timeout(Duration::from_millis(100), upload).await.is_err());
    assert_eq!(files(house.folder.path()), 0);
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
