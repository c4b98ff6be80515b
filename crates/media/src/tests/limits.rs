//! What one user may take from the others, and what hanging up and crashes leave behind.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_store::{
    Store, Tx,
    media::{UserBytes, UserMedia},
};
use chappe_world::{Outbound, World};
use futures_util::{FutureExt, StreamExt, stream};
use image::ImageFormat;
use ruma::{owned_user_id, server_name, user_id};

use super::{House, Other, SMALL, alice, body, bytes, fake, files, get, house, png, store};
use crate::{Config, Content, Error, Media, Reach, Upload};

async fn open(store: &Store, world: World, folder: &Path, config: Config) -> Media {
    super::open((store.clone(), world), folder, Arc::new(Other::default()), config).await
}

async fn put(media: &Media, bytes: &[u8]) -> String {
    let uri = media.upload(alice("image/png"), body(bytes)).await.unwrap();
    uri.media_id().unwrap().to_owned()
}

async fn thumbnail(media: &Media, id: &str, asker: &str) -> Result<Content, Error> {
    media.thumbnail(server_name!("a.test"), id, SMALL, (Reach::Local, asker), Duration::ZERO).await
}

fn endless() -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending())
}

#[tokio::test]
async fn who_hangs_up_leaves_no_room_for_more_thumbnails_than_there_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::real(&Outbound::default()).unwrap();
    let config = Config { thumbnails_at_once: 1, ..Config::default() };
    let media = open(&store(), world, folder.path(), config).await;
    let id = put(&media, &png(6_000, 6_000)).await;
    // Sooner or later it is hung up while the picture is decoded.
    let mut patience = Duration::ZERO;
    while media.0.making.available_permits() > 0 {
        patience += Duration::from_millis(5);
        let made = tokio::time::timeout(patience, thumbnail(&media, &id, "@alice:a.test")).await;
        assert!(made.is_err(), "the place is free although the work goes on");
    }
    let _free = media.0.making.acquire().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_user_keeps_no_thumbnails_from_others() {
    let House { media, .. } = &house(Config::default()).await;
    let id = put(media, &png(400, 400)).await;
    let place = media.places_to_make("@alice:a.test").await.unwrap();
    assert!(matches!(thumbnail(media, &id, "@alice:a.test").await, Err(Error::Busy)));
    thumbnail(media, &id, "@bob:a.test").await.unwrap();
    drop(place);
    let other = put(media, &png(500, 500)).await;
    thumbnail(media, &other, "@alice:a.test").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_no_thumbnail_is_made_of_is_looked_at_once() {
    let House { media, .. } = &house(Config { thumbnails_at_once: 1, ..Config::default() }).await;
    let (small, none, other) =
        (put(media, &png(10, 10)).await, put(media, b"<svg/>").await, put(media, &png(11, 11)).await);
    let ask = async |id: &str| thumbnail(media, id, "@alice:a.test").await;
    assert_eq!(bytes(ask(&small).await.unwrap()).await, png(10, 10));
    assert!(matches!(ask(&none).await, Err(Error::NoThumbnail)));
    let _place = media.places_to_make("@bob:a.test").await.unwrap();
    assert!(matches!(ask(&other).await, Err(Error::Busy)));
    assert_eq!(bytes(ask(&small).await.unwrap()).await, png(10, 10));
    assert!(matches!(ask(&none).await, Err(Error::NoThumbnail)));
}

#[tokio::test]
async fn a_thumbnail_does_not_outlive_its_medium() {
    let house = house(Config::default()).await;
    let id = put(&house.media, &png(400, 400)).await;
    let blob = house.media.known(server_name!("a.test"), &id).await.unwrap().unwrap().blob.unwrap();
    house.media.delete(server_name!("a.test"), &id).await.unwrap();
    let key = (server_name!("a.test").to_owned(), id, "96x96c".to_owned());
    let kept = house.media.keep_made(blob, (png(96, 96), ImageFormat::Png), vec![key]).await;
    assert!(matches!(kept, Err(Error::NotFound)));
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test]
async fn parallel_uploads_do_not_pass_the_quota() {
    let house = house(Config { max_bytes_per_user: 10, ..Config::default() }).await;
    let media = &house.media;
    let upload = async |bytes: &[u8]| media.upload(alice("text/plain"), body(bytes)).await;
    let (one, two) = tokio::join!(upload(b"six by"), upload(b"six by"));
    let refused = [&one, &two].iter().filter(|done| matches!(done, Err(Error::QuotaExceeded))).count();
    assert_eq!((refused, files(house.folder.path())), (1, 1));
    assert!(matches!(upload(b"five.").await, Err(Error::QuotaExceeded)), "cut off as it comes");
    upload(b"four").await.unwrap();
    assert!(matches!(upload(b"").await, Err(Error::QuotaExceeded)), "refused before it comes");
    let kept = one.or(two).unwrap();
    media.delete(server_name!("a.test"), kept.media_id().unwrap()).await.unwrap();
    upload(b"six by").await.unwrap();
}

#[tokio::test]
async fn what_was_uploaded_before_it_was_counted_counts() {
    let House { media, .. } = &house(Config { max_bytes_per_user: 10, ..Config::default() }).await;
    let user = owned_user_id!("@alice:a.test");
    let mut tx = Tx::new();
    tx.put::<UserMedia>(&(user.clone(), 1, "old".to_owned()), &7);
    media.0.store.commit(tx).await.unwrap();
    let upload = async |bytes: &[u8]| media.upload(alice("text/plain"), body(bytes)).await;
    assert!(matches!(upload(b"four").await, Err(Error::QuotaExceeded)));
    upload(b"two").await.unwrap();
    assert_eq!(media.0.store.read().get::<UserBytes>(&user).await.unwrap(), Some(10));
}

#[tokio::test(start_paused = true)]
async fn a_user_has_so_many_uploads_at_a_time_and_none_for_ever() {
    let house = house(Config { uploads_at_once_per_user: 2, ..Config::default() }).await;
    let media = &house.media;
    let created = media.create(user_id!("@alice:a.test")).await.unwrap();
    let id = created.uri.media_id().unwrap();
    let mut held = [0, 1].map(|_| Box::pin(media.upload_to(id, alice("text/plain"), endless())));
    for upload in &mut held {
        assert!(tokio::time::timeout(Duration::from_secs(1), upload).await.is_err());
    }
    assert!(matches!(media.upload(alice("text/plain"), body(b"x")).await, Err(Error::Busy)));
    let bob = Upload { user: owned_user_id!("@bob:a.test"), ..alice("text/plain") };
    media.upload(bob, body(b"x")).await.unwrap();
    for upload in held {
        assert!(matches!(upload.await, Err(Error::BrokeOff(_))), "after an hour");
    }
    assert_eq!(files(house.folder.path()), 1);
    media.upload(alice("text/plain"), body(b"x")).await.unwrap();
}

#[tokio::test]
async fn who_hangs_up_at_the_very_end_leaves_a_medium_or_nothing() {
    let house = house(Config::default()).await;
    let media = &house.media;
    let received = media.0.blobs.receive("aabbcc".to_owned(), body(b"whole"), 10).await.unwrap();
    let medium = media.uploaded(alice("text/plain"), &received);
    assert!(media.finish(received, "id".to_owned(), (None, medium)).now_or_never().is_none());
    while media.known(server_name!("a.test"), "id").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bytes(get(media, "a.test", "id").await.unwrap()).await, b"whole");
}

#[tokio::test]
async fn what_a_crash_left_without_a_name_goes_at_the_next_start() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store());
    let media = open(&store, fake(), folder.path(), Config::default()).await;
    let id = put(&media, &png(400, 400)).await;
    thumbnail(&media, &id, "@alice:a.test").await.unwrap();
    assert_eq!(files(folder.path()), 2);
    let medium = media.known(server_name!("a.test"), &id).await.unwrap().unwrap();
    media.0.blobs.mark(medium.blob.as_deref().unwrap()).await.unwrap();
    let received = media.0.blobs.receive("aabbcc".to_owned(), body(b"nobody's"), 10).await.unwrap();
    media.0.blobs.place(received).await.unwrap();
    assert_eq!(files(folder.path()), 5, "with a file and two marks more");
    let media = open(&store, fake(), folder.path(), Config::default()).await;
    assert_eq!(files(folder.path()), 5, "the server does not wait for it to start");
    while files(folder.path()) > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bytes(get(&media, "a.test", &id).await.unwrap()).await, png(400, 400));
    thumbnail(&media, &id, "@alice:a.test").await.unwrap();
}
