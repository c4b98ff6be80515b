//! Media of other servers: how they are fetched, and when they go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use ruma::{ServerName, server_name, user_id};
use tokio::sync::Semaphore;

use super::{House, alice, body, bytes, files, get, house, media};
use crate::{Config, Error, Reach, RemoteContent, RemoteError, RemoteMedia};

/// Another server with media of ten bytes each, which it gives only when it is let.
struct Slow {
    asked: AtomicUsize,
    open: Semaphore,
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

/// Another server that is silent until whoever asks gives up.
#[derive(Default)]
struct Silent(AtomicUsize);

#[async_trait]
impl RemoteMedia for Silent {
    async fn download(
        &self,
        _: &ServerName,
        _: &str,
        _: u64,
        _: Duration,
    ) -> Result<RemoteContent, RemoteError> {
        self.0.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        Err(RemoteError::Unavailable("silent".to_owned()))
    }
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

#[tokio::test(start_paused = true)]
async fn a_slow_server_keeps_no_place_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: Semaphore::new(0) });
    let config = Config { remote_at_once: 3, remote_at_once_per_server: 2, ..Config::default() };
    let media = &media(&folder, slow.clone(), config).await;
    let asks =
        |server: &'static str| (0..4).map(move |n| async move { get(media, server, &n.to_string()).await });
    let all = futures_util::future::join_all(asks("b.test").chain(asks("c.test")));
    let released = async {
        tokio::task::yield_now().await;
        assert_eq!(slow.asked.load(Relaxed), 3, "two of one server, and one more");
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(slow.asked.load(Relaxed), 3);
        tokio::time::sleep(Duration::from_secs(22)).await;
        assert_eq!(slow.asked.load(Relaxed), 4, "slow servers keep the places among all");
        slow.open.add_permits(4);
    };
    let (outcomes, ()) = tokio::join!(all, released);
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Busy))).count();
    let there = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((there, busy), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_silent_server_does_not_wait_again_after_others() {
    let (folder, silent) = (tempfile::tempdir().unwrap(), Arc::new(Silent::default()));
    let media = &media(&folder, silent.clone(), Config::default()).await;
    let began = media.0.world.instant();
    let asks = (0..3).map(|_| get(media, "b.test", "there"));
    for outcome in futures_util::future::join_all(asks).await {
        assert!(matches!(outcome, Err(Error::RemoteFailed(_))));
    }
    assert_eq!((silent.0.load(Relaxed), began.elapsed().as_secs()), (1, 30));
    // Who comes later has it asked again.
    assert!(matches!(get(media, "b.test", "there").await, Err(Error::RemoteFailed(_))));
    assert_eq!(silent.0.load(Relaxed), 2);
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
async fn too_large_media_of_other_servers_are_not_kept() {
    let house = house(Config { max_remote_bytes: 7, ..Config::default() }).await;
    for _ in 0..2 {
        assert!(matches!(get(&house.media, "b.test", "there").await, Err(Error::RemoteTooLarge)));
    }
    assert_eq!(house.other.0.load(Relaxed), 1, "nor fetched for everybody who asks");
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn media_of_other_servers_go_when_nobody_asks_or_there_is_no_room() {
    const HOUR: Duration = Duration::from_hours(1);
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: Semaphore::new(100) });
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
    let slow = Arc::new(Slow { asked: AtomicUsize::new(0), open: Semaphore::new(1) });
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
