//! How long destinations are left alone, and which of them are remembered.

use std::time::Duration;

use chappe_kv::{Counting, Db, Memory, RoundTrips};
use chappe_store::OutboxItem;
use ruma::server_name;

use super::*;
use crate::tests::memory;

fn backoff(store: &Store) -> Backoff {
    let config = Config { backoff_min_ms: 1_000, backoff_max: 60, ..Config::default() };
    Backoff::new(crate::tests::world(1), store.clone(), &config)
}

/// With something that waits for a server.
async fn waiting(server: &ServerName) -> Store {
    let store = memory();
    let mut tx = Tx::new();
    tx.enqueue(server, &OutboxItem::Pdu { room: 1, event: 1 });
    store.commit(tx).await.unwrap();
    store
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest_and_survive_a_restart() {
    let peer = server_name!("peer.example");
    let store = waiting(peer).await;
    let backoff = backoff(&store);
    let mut last = 0;
    for round in 0..10 {
        let state = backoff.failed(peer, None).await.unwrap();
        let wait = state.retry_at - backoff.0.world.now();
        assert!(wait <= 60_000 && wait >= (800 << round.min(5)).min(48_000), "round {round}: {wait}");
        last = state.failures;
        tokio::time::advance(Duration::from_millis(wait)).await;
    }
    assert_eq!(last, 10);
    let again = self::backoff(&store);
    assert_eq!(again.state(peer).await.unwrap().failures, 10);
    again.succeeded(peer).await.unwrap();
    assert_eq!(again.state(peer).await.unwrap(), DestinationState::default());
    assert_eq!(self::backoff(&store).state(peer).await.unwrap(), DestinationState::default());
}

#[tokio::test(start_paused = true)]
async fn who_was_not_reached_again_and_again_is_gone_until_there_is_word_of_it() {
    let peer = server_name!("peer.example");
    let store = waiting(peer).await;
    let backoff = backoff(&store);
    let standing = async || backoff.standing(peer).await.unwrap();
    assert_eq!(standing().await, Standing::There);
    let fail = async |times: u32| {
        for _ in 0..times {
            let state = backoff.failed(peer, None).await.unwrap();
            tokio::time::advance(Duration::from_millis(state.retry_at - backoff.0.world.now())).await;
        }
        standing().await
    };
    assert_eq!(fail(FEW).await, Standing::Doubtful);
    assert_eq!(fail(1).await, Standing::Gone);
    // Its time has come already.
    backoff.heard_from(peer);
    assert_eq!(standing().await, Standing::Doubtful);
    assert_eq!(fail(1).await, Standing::Gone);
    backoff.end_wait(peer).await.unwrap();
    let state = backoff.state(peer).await.unwrap();
    assert_eq!((state.failures, state.send_at()), (1, 0));
    assert_eq!(standing().await, Standing::Doubtful);
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_same_moment_count_once() {
    let store = memory();
    let (backoff, peer) = (backoff(&store), server_name!("peer.example"));
    backoff.failed(peer, None).await.unwrap();
    let state = backoff.failed(peer, Some(((4, Index(2)), "5.x".to_owned()))).await.unwrap();
    assert_eq!((state.failures, state.tried), (1, Some((4, Index(2)))));
    assert_eq!(state.transaction.as_deref(), Some("5.x"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_written_while_the_clock_was_ahead_is_over() {
    let peer = server_name!("peer.example");
    let store = waiting(peer).await;
    let ahead = backoff(&store).0.world.now() + 30 * 24 * 3_600_000;
    let refused = Refusals { count: 1, since: ahead, retry_at: ahead };
    let written = DestinationState { failures: 1, retry_at: ahead, refused, ..Default::default() };
    let mut tx = Tx::new();
    tx.put::<Destinations>(&peer.to_owned(), &Json(written));
    store.commit(tx).await.unwrap();
    let backoff = backoff(&store);
    assert_eq!(backoff.wait_until(peer).await.unwrap(), 0);
    assert_eq!(backoff.send_at(peer).await.unwrap(), 0);
    // Where it is away, and where it still takes nothing, one waits from now on.
    let failed = backoff.failed(peer, None).await.unwrap();
    for state in [failed, backoff.refused(peer, None, None).await.unwrap()] {
        let wait = state.send_at() - backoff.0.world.now();
        assert!((1..=60_000).contains(&wait), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_ends_the_wait_once_in_a_while() {
    let store = memory();
    let (backoff, peer) = (backoff(&store), server_name!("peer.example"));
    let mut revived = backoff.revivals();
    backoff.failed(peer, None).await.unwrap();
    assert_ne!(backoff.wait_until(peer).await.unwrap(), 0);
    backoff.heard_from(peer);
    assert_eq!(revived.try_recv().unwrap(), peer);
    assert_eq!(backoff.wait_until(peer).await.unwrap(), 0);
    backoff.failed(peer, None).await.unwrap();
    backoff.heard_from(peer);
    assert!(revived.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refused_transaction_lets_the_queue_alone_wait_for_as_long_as_it_is_asked_to() {
    let peer = server_name!("peer.example");
    let store = waiting(peer).await;
    let backoff = backoff(&store);
    let tried = Some((1, Index(0)));
    let wait = async |again_in| {
        let state = backoff.refused(peer, Some(((1, Index(0)), "2.x".to_owned())), again_in).await.unwrap();
        (state.send_at() - backoff.0.world.now(), state.refused.count)
    };
    assert_eq!(wait(Some(5_000)).await, (5_000, 1));
    assert_eq!(wait(Some(0)).await, (1_000, 2), "as if it had not been refused");
    assert_eq!(wait(Some(u64::MAX)).await, (3_600_000, 3));
    assert_eq!(backoff.wait_until(peer).await.unwrap(), 0, "questions wait as well");
    // Neither an answer nor a request of its own says that it takes transactions.
    backoff.succeeded(peer).await.unwrap();
    backoff.heard_from(peer);
    let state = self::backoff(&store).state(peer).await.unwrap();
    assert!(state.send_at() > backoff.0.world.now() && state.tried == tried, "{state:?}");
    backoff.end_wait(peer).await.unwrap();
    assert_eq!(self::backoff(&store).send_at(peer).await.unwrap(), 0);
    backoff.delivered(peer).await.unwrap();
    assert_eq!(self::backoff(&store).state(peer).await.unwrap(), DestinationState::default());
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_many_end_in_one_commit() {
    let trips = Arc::new(RoundTrips::default());
    let store = Store::new(Db::new(Counting::new(Memory::default(), Arc::clone(&trips))));
    let first = backoff(&store);
    let all: Vec<OwnedServerName> =
        (0..20).map(|number| OwnedServerName::try_from(format!("n{number}.example")).unwrap()).collect();
    for server in &all {
        let mut tx = Tx::new();
        tx.enqueue(server, &OutboxItem::Pdu { room: 1, event: 1 });
        store.commit(tx).await.unwrap();
        first.failed(server, None).await.unwrap();
    }
    trips.take();
    first.end_waits(&all).await.unwrap();
    assert_eq!(trips.take().2, 1);
    for server in &all {
        assert_eq!(backoff(&store).send_at(server).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nothing_waits_for_leaves_no_row() {
    let peer = server_name!("peer.example");
    let store = waiting(peer).await;
    let made_up = server_name!("random1.example");
    let first = backoff(&store);
    first.failed(made_up, None).await.unwrap();
    first.failed(peer, None).await.unwrap();
    assert_ne!(first.wait_until(made_up).await.unwrap(), 0);
    let rows = async || store.read().scan_all::<Destinations>(&()).await.unwrap().len();
    assert_eq!(rows().await, 1);
    // Nor do those stay that were written before.
    let mut tx = Tx::new();
    for number in 0..2_500 {
        let server = OwnedServerName::try_from(format!("random{number}.example")).unwrap();
        tx.put::<Destinations>(&server, &Json(DestinationState { failures: 1, ..Default::default() }));
    }
    store.commit(tx).await.unwrap();
    backoff(&store).forget_idle().await.unwrap();
    assert_eq!(rows().await, 1);
    assert_eq!(backoff(&store).state(peer).await.unwrap().failures, 1);
}

#[test]
fn made_up_servers_are_forgotten_before_others() {
    let reached = Known { reached_at: 1, ..Known::default() };
    let kept = Known { kept: DestinationState { failures: 1, ..Default::default() }, ..Known::default() };
    let name = |number: usize| OwnedServerName::try_from(format!("n{number}.example")).unwrap();
    let made_up = (2..REMEMBERED).map(|number| (name(number), Known::default()));
    let mut known: HashMap<_, _> = made_up.chain([(name(0), reached), (name(1), kept)]).collect();
    make_room(&mut known);
    assert_eq!(known.len(), 2);
}
