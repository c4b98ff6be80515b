//! Copies of other servers' media: files that are gone, and the room that they and their thumbnails take up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chappe_store::{Json, media::Thumbnails};
use futures_util::stream;
use ruma::{ServerName, server_name, user_id};

use super::{SMALL, alice, body, bytes, get, media, png};
use crate::{Config, Content, Error, Media, Reach, RemoteContent, RemoteError, RemoteMedia};

/// Another server all of whose media are these bytes, how often it was asked, and whether it is away.
struct Gives(Vec<u8>, AtomicUsize, AtomicBool);

#[async_trait]
impl RemoteMedia for Gives {
    async fn download(
        &self,
        _: &ServerName,
        _: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        self.1.fetch_add(1, Relaxed);
        if self.2.load(Relaxed) {
            return Err(RemoteError::Unavailable("away".to_owned()));
        }
        let body = Box::pin(stream::iter([Ok(Bytes::from(self.0.clone()))]));
        Ok(RemoteContent { content_type: None, filename: None, body })
    }
}

async fn beside(given: Vec<u8>, config: Config) -> (Media, Arc<Gives>, tempfile::TempDir) {
    let gives = Arc::new(Gives(given, AtomicUsize::new(0), AtomicBool::new(false)));
    let folder = tempfile::tempdir().unwrap();
    (media(&folder, gives.clone(), config).await, gives, folder)
}

fn picture() -> Vec<u8> {
    png(400, 400)
}

async fn thumbnail(media: &Media, server: &ServerName, id: &str) -> Content {
    let made = media.thumbnail(server, id, SMALL, (Reach::Anywhere, "@alice:a.test"), Duration::ZERO);
    made.await.unwrap()
}

/// Removes the file of a medium, as a disk or a backup without media does.
async fn lose(media: &Media, server: &ServerName, id: &str) {
    let medium = media.known(server, id).await.unwrap().unwrap();
    media.0.blobs.remove(&medium.blob.unwrap()).await;
}

#[tokio::test]
async fn a_copy_whose_file_is_gone_is_fetched_again() {
    let (media, other, _folder) = &beside(picture(), Config::default()).await;
    let b = server_name!("b.test");
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    lose(media, b, "there").await;
    assert!(!media.is_kept(b, "there").await.unwrap(), "it has to be fetched");
    let kept = media.content(b, "there", Reach::Kept, Duration::ZERO).await;
    assert!(matches!(kept, Err(Error::NotFound)));
    assert_eq!(bytes(get(media, "b.test", "there").await.unwrap()).await, picture());
    lose(media, b, "there").await;
    bytes(thumbnail(media, b, "there").await).await;
    assert_eq!(other.1.load(Relaxed), 3);
    // Under quarantine it stays so, and nobody is asked.
    media.quarantine(b, "there", user_id!("@root:a.test")).await.unwrap();
    lose(media, b, "there").await;
    assert!(matches!(get(media, "b.test", "there").await, Err(Error::NotFound)));
    assert_eq!(other.1.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_copy_outlasts_its_file() {
    let (media, other, _folder) = &beside(picture(), Config::default()).await;
    let b = server_name!("b.test");
    let known = async || media.known(b, "there").await.unwrap().unwrap();
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    let before = known().await;
    let path = media.0.blobs.path(before.blob.as_deref().unwrap());
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    other.2.store(true, Relaxed);
    let away = get(media, "b.test", "there").await;
    assert!(matches!(away, Err(Error::RemoteFailed(_))));
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(bytes(get(media, "b.test", "there").await.unwrap()).await, picture(), "it came back");
    assert_eq!(known().await, before);
    other.2.store(false, Relaxed);
    lose(media, b, "there").await;
    tokio::time::advance(Duration::from_hours(1)).await;
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    let after = known().await;
    assert_eq!((after.created, after.sha256), (before.created, before.sha256));
    assert_ne!(after.blob, before.blob);
}

#[tokio::test]
async fn a_thumbnail_whose_file_is_gone_is_made_again() {
    let (media, _other, _folder) = &beside(Vec::new(), Config::default()).await;
    let own = server_name!("a.test");
    let uri = media.upload(alice("image/png"), body(&picture())).await.unwrap();
    let id = uri.media_id().unwrap();
    let first = bytes(thumbnail(media, own, id).await).await;
    let key = (own.to_owned(), id.to_owned(), "96x96c".to_owned());
    let Json(made) = media.0.store.read().get::<Thumbnails>(&key).await.unwrap().unwrap();
    media.0.blobs.remove(&made.blob).await;
    assert_eq!(bytes(thumbnail(media, own, id).await).await, first);
}

#[tokio::test]
async fn what_could_not_be_given_was_not_given_out() {
    let (media, _other, _folder) = &beside(Vec::new(), Config::default()).await;
    let own = server_name!("a.test");
    let uri = media.upload(alice("image/png"), body(&picture())).await.unwrap();
    let id = uri.media_id().unwrap();
    lose(media, own, id).await;
    assert!(matches!(get(media, "a.test", id).await, Err(Error::NotFound)));
    assert_eq!(media.info(own, id).await.unwrap().unwrap().last_access, None);
}

#[tokio::test(start_paused = true)]
async fn thumbnails_of_other_servers_media_take_up_room_as_well() {
    let remote_space_bytes = picture().len() as u64;
    let config = Config { remote_space_bytes, ..Config::default() };
    let (media, _other, _folder) = &beside(picture(), config).await;
    let b = server_name!("b.test");
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    media.upkeep().await.unwrap();
    assert!(media.is_kept(b, "there").await.unwrap(), "there is room");
    bytes(thumbnail(media, b, "there").await).await;
    media.upkeep().await.unwrap();
    assert!(!media.is_kept(b, "there").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn empty_copies_go_with_the_others() {
    let (media, _other, _folder) = &beside(Vec::new(), Config::default()).await;
    bytes(get(media, "b.test", "there").await.unwrap()).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(media.purge_remote(media.0.world.now()).await.unwrap(), 1);
}
