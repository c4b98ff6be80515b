//! Requests that nobody waits for any more: what they had begun to write is written, and memory follows.

use std::{pin::Pin, time::Duration};

use chappe_kv::Db;
use chappe_store::Store;
use futures_util::{
    FutureExt,
    future::{join, join_all},
};
use ruma::OwnedDeviceId;
use tokio::task::yield_now;

use super::{log_in, on, user, yielding::Yielding};
use crate::Erase;

/// Goes on with a request so many times, while others go on too; whether it has ended.
async fn go_on<F: Future>(request: &mut Pin<Box<F>>, times: usize) -> bool {
    for _ in 0..times {
        if request.as_mut().now_or_never().is_some() {
            return true;
        }
        yield_now().await;
    }
    false
}

#[tokio::test]
async fn whoever_hangs_up_is_logged_out_all_the_same() {
    let accounts = on(&Store::new(Db::new(Yielding::default())), |_| {});
    let alice = user(&accounts, "alice").await;
    let mut hung_up_and_gone = false;
    for times in 0..100 {
        let device = OwnedDeviceId::from(format!("D{times}"));
        let token = log_in(&accounts, &alice, device.as_str()).await.access_token;
        let reads = (0..150).map(async |turns| {
            for _ in 0..turns {
                yield_now().await;
            }
            accounts.authenticate(&token).await
        });
        let leaving = async {
            let mut request = Box::pin(accounts.log_out(&alice, &device));
            go_on(&mut request, times).await
        };
        let (_, ended) = join(join_all(reads), leaving).await;
        let gone = accounts.device(&alice, &device).await.unwrap().is_none();
        assert_eq!(accounts.authenticate(&token).await.is_err(), gone, "hung up after {times}");
        hung_up_and_gone |= gone && !ended;
        if ended {
            break;
        }
    }
    assert!(hung_up_and_gone);
}

#[tokio::test]
async fn whoever_hangs_up_is_erased_all_the_same() {
    let store = Store::new(Db::new(Yielding::default()));
    let other = on(&store, |_| {});
    let mut seen = [false; 2];
    for (times, is_first) in (0..100).flat_map(|times| [(times, true), (times, false)]) {
        let accounts = on(&store, |_| {});
        let alice = user(&accounts, &format!("u{times}-{is_first}")).await;
        let mut closing = Box::pin(accounts.deactivate(&alice, Erase::Yes));
        let ended = go_on(&mut closing, times).await;
        if !ended {
            if !is_first {
                other.update_user(&alice, |_| {}).await.unwrap();
            }
            go_on(&mut closing, 1).await;
        }
        drop(closing);
        assert!(accounts.world().shut_down(Duration::from_mins(1)).await.is_empty());
        let closed = accounts.user(&alice).await.unwrap().unwrap().deactivated;
        let erased = closed.is_some_and(|closed| closed.erase);
        assert_eq!(accounts.is_erased(&alice), erased, "hung up after {times}");
        if ended {
            break;
        }
        seen[usize::from(erased)] = true;
    }
    assert_eq!(seen, [true; 2]);
}
