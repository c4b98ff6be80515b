//! When destinations are served, and what of what is gathered goes then.

use futures_util::FutureExt;
use ruma::{owned_event_id, owned_room_id, owned_user_id, room_id, server_name, user_id};

use super::*;

#[test]
fn one_worker_per_destination_that_misses_nothing() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    assert!(lanes.wake(peer));
    assert!(!lanes.wake(peer), "a second worker");
    assert!(!lanes.rest(peer, now), "what came meanwhile was missed");
    assert!(lanes.rest(peer, now));
    assert!(lanes.wake(peer));
}

fn type_in(lanes: &Lanes, peer: &ServerName, now: Instant, wait: u64) {
    let when = When { now, wait: Duration::from_secs(wait) };
    lanes.add_typing(peer, when, ((room_id!("!r:a"), user_id!("@u:a")), true));
}

fn read_at(lanes: &Lanes, peer: &ServerName, (now, wait): (Instant, u64), at: u64) {
    let place = (owned_room_id!("!r:a"), owned_user_id!("@u:a"), format!("$t{at}"));
    let when = When { now, wait: Duration::from_secs(wait) };
    lanes.add_receipt(peer, when, (Position(at), place, (owned_event_id!("$1"), at)));
}

#[test]
fn a_worker_does_not_forget_what_was_just_added() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    let due = now + Duration::from_secs(1);
    assert!(lanes.wake(peer));
    type_in(&lanes, peer, now, 1);
    assert!(lanes.rest(peer, now), "it is not due");
    assert_eq!(lanes.due(due), [peer], "it would be lost");
    assert!(!lanes.rest(peer, due));
    assert_eq!(lanes.take_fleeting(peer, 10, Some(due)).0.len(), 1);
    assert!(lanes.rest(peer, due));
    assert_eq!(lanes.next_due(), None);
}

#[test]
fn what_can_wait_goes_at_the_latest_when_its_time_comes() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    read_at(&lanes, peer, (now, 4), 7);
    read_at(&lanes, peer, (after(2), 4), 8);
    assert_eq!((lanes.next_due(), lanes.gathered_since(now)), (Some(after(4)), Some(Position(7))));
    type_in(&lanes, peer, after(2), 1);
    assert_eq!(lanes.next_due(), Some(after(3)));
    assert!(lanes.due(after(2)).is_empty());
    assert_eq!(lanes.due(after(3)), [peer]);
    assert!(lanes.take_fleeting(peer, 10, Some(after(2))).0.is_empty());
    assert_eq!(lanes.take_fleeting(peer, 10, Some(after(3))).1.receipts.len(), 2);
    assert_eq!(lanes.gathered_since(after(3)), None);
    assert!(lanes.rest(peer, after(3)));
}

#[test]
fn who_does_not_take_what_is_due_holds_up_nobody() {
    let (lanes, slow, other) = (Lanes::default(), server_name!("slow.example"), server_name!("b.example"));
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    assert!(lanes.wake(slow));
    read_at(&lanes, slow, (now, 4), 7);
    assert_eq!(lanes.gathered_since(after(63)), Some(Position(7)));
    read_at(&lanes, other, (after(64), 4), 9);
    assert_eq!(lanes.gathered_since(after(64)), Some(Position(9)));
}

#[test]
fn what_can_wait_goes_along_with_what_cannot() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    read_at(&lanes, peer, (now, 4), 7);
    assert!(lanes.wake(peer), "nothing else waits for it");
    assert_eq!(lanes.next_due(), None);
    assert_eq!(lanes.take_fleeting(peer, 10, None).1.receipts.len(), 1);
    assert!(lanes.rest(peer, now));
}

#[test]
fn what_is_plenty_waits_no_longer() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    let mut at = 0;
    while lanes.next_due() != Some(now) {
        at += 1;
        assert!(at < 2_000, "some would be left out");
        read_at(&lanes, peer, (now, 4), at);
    }
    assert!(at > 100);
}

#[test]
fn rows_that_leave_a_queue_are_counted_once() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    assert!(lanes.wake(peer));
    lanes.set_length(peer, Length { rows: 3, to: (7, Index(1)), left: 2 });
    let keys = [(7, 0), (7, 1), (8, 0)];
    let keys = keys.map(|(position, index)| (peer.to_owned(), position, Index(index)));
    lanes.done(peer, &keys);
    assert_eq!(lanes.length(peer), Length { rows: 1, to: (7, Index(1)), left: 0 });
}

#[test]
fn waiting_ends_with_its_time_or_a_sign_of_life() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    assert!(lanes.wake(peer));
    lanes.wait(peer, after(100));
    assert!(!lanes.wake(peer));
    assert_eq!(lanes.waiting(), [peer]);
    assert_eq!(lanes.next_due(), Some(after(100)));
    assert!(lanes.due(after(99)).is_empty());
    assert_eq!(lanes.due(after(100)), [peer]);
    lanes.wait(peer, after(200));
    assert!(lanes.wake_at_once(peer));
    assert_eq!(lanes.next_due(), None);
    assert!(!lanes.wake_at_once(peer));
    assert!(lanes.word_of(peer).notified().now_or_never().is_some(), "its worker is not told");
}

#[test]
fn who_types_is_kept_while_a_wait_is_short() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let told = |seconds| {
        assert_eq!(lanes.due(after(seconds)), [peer]);
        lanes.drop_stale(peer, after(seconds));
        lanes.take_fleeting(peer, 10, None)
    };
    assert!(lanes.wake(peer));
    lanes.wait(peer, after(10));
    type_in(&lanes, peer, now, 1);
    let (edus, taken) = told(10);
    assert_eq!(edus.len(), 1);
    lanes.give_back(peer, taken);
    lanes.wait(peer, after(25));
    let (edus, taken) = told(25);
    assert_eq!(edus.len(), 1, "it was not delivered");
    lanes.give_back(peer, taken);
    lanes.wait(peer, after(40));
    assert!(told(40).0.is_empty());
    lanes.wait(peer, after(100));
    type_in(&lanes, peer, after(60), 1);
    assert!(told(100).0.is_empty());
    assert!(lanes.rest(peer, after(100)), "nothing is left");
}

#[test]
fn after_a_fault_of_this_server_a_queue_is_looked_at_soon_and_less_and_less() {
    let (lanes, peer) = (Lanes::default(), server_name!("peer.example"));
    let mut now = Instant::now();
    assert!(lanes.wake(peer));
    let mut pause = || {
        lanes.wait_for_repair(peer, now);
        assert!(!lanes.wake(peer), "news would keep it busy");
        let next = lanes.next_due().unwrap();
        let pause = next.saturating_duration_since(now).as_secs();
        now = next;
        assert_eq!(lanes.due(now), [peer]);
        pause
    };
    let pauses: Vec<u64> = (0..9).map(|_| pause()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    lanes.done(peer, &[]);
    assert_eq!(pause(), 1, "it was worked on since");
}
