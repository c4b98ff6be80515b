//! What other servers have, tell and ask for of what has expired.

use std::time::Duration;

use ruma::{MilliSecondsSinceUnixEpoch, UInt, api::Direction};
use serde_json::json;
use tokio::time::advance;

use super::{
    super::net::{ALICE, BOB, CAROL, Net, actor, bodies, join, room, say, state, stored, text},
    DAY, DAY_MS, HOUR, dated, seen, server, third, two,
};
use crate::{Draft, Rooms};

/// A draft that says something, of a time that has nearly expired.
fn nearly_expired(rooms: &Rooms, draft: Draft) -> Draft {
    dated(draft, rooms.0.world.now() - 7 * DAY_MS + 60_000)
}

/// Whoever missed what has expired meanwhile can follow what comes after it.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_finds_no_hole() {
    for version in ["1", "11"] {
        let net = Net::default();
        let (a, b, id) = two(&net, version).await;
        for number in 0..5 {
            say(&a, ALICE, &id, &format!("missed {number}")).await;
        }
        net.lose(&a, "b.example").await;
        advance(7 * DAY + HOUR).await;
        a.expire_due().await.unwrap();
        assert_eq!(a.expiry_figures().events, 5, "the last one as well");
        say(&a, ALICE, &id, "later").await;
        net.deliver().await;
        assert_eq!(seen(&b, BOB, &id).await, ["later"]);
        say(&b, BOB, &id, "answer").await;
        net.deliver().await;
        assert_eq!(seen(&a, ALICE, &id).await, ["answer", "later"]);
        let view = b.view(&id).await.unwrap();
        assert_eq!(view.head.extremities.len(), 1, "version {version}: nothing came loose");
    }
}

/// A server with messages that have expired and others that have not; what is fetched of it is of both kinds.
#[tokio::test(start_paused = true)]
async fn old_history_comes_without_what_it_said() {
    let net = Net::default();
    let a = net.server("a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(7 * DAY).await;
    let fresh = say(&a, ALICE, &id, "fresh").await;
    let b = server(&net, "b.example", 2);
    join(&b, BOB, &id).await;
    net.deliver().await;
    assert!(b.fetch_older(&id, 50).await.unwrap() > 3);
    assert_eq!(seen(&b, BOB, &id).await, ["fresh"]);
    assert_eq!(bodies(&b, &id).await, ["fresh"]);
    assert!(!stored(&b, &id, &old).await.contains("\"body\""), "it was never kept");
    assert!(stored(&b, &id, &fresh).await.contains("fresh"));
    assert_eq!(seen(&a, ALICE, &id).await, ["fresh", "old"], "a plain server keeps everything");
}

#[tokio::test(start_paused = true)]
async fn history_does_not_wait_for_what_came_before_it() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    let old = say(&a, ALICE, &id, "old").await;
    advance(6 * DAY).await;
    let c = third(&net, &id).await;
    let new = say(&c, CAROL, &id, "new").await;
    assert!(c.fetch_older(&id, 50).await.unwrap() > 0);
    assert_eq!(bodies(&c, &id).await, ["old", "new"]);
    advance(DAY + HOUR).await;
    c.expire_due().await.unwrap();
    assert!(!stored(&c, &id, &old).await.contains("\"body\""));
    assert!(stored(&c, &id, &new).await.contains("\"body\""));
    assert_eq!(c.expiry_figures().events, 1);
    advance(6 * DAY).await;
    assert!(c.expire_due().await.unwrap().is_none());
    assert!(bodies(&c, &id).await.is_empty());
    assert_eq!(c.expiry_figures().events, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_before_an_expired_message_can_still_be_had() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    advance(Duration::from_secs(1)).await;
    let at = MilliSecondsSinceUnixEpoch(UInt::try_from(a.0.world.now()).unwrap());
    // State does not expire, and keeps nothing that came later waiting.
    let kept = json!({ "topic": "kept", "body": "kept" });
    let kept = a.send(&actor(ALICE), &id, state("m.room.topic", "", &kept), None).await.unwrap();
    advance(Duration::from_secs(1)).await;
    let first = nearly_expired(&a, text("first"));
    let first = a.send(&actor(ALICE), &id, first, None).await.unwrap();
    net.deliver().await;
    let c = third(&net, &id).await;
    assert_eq!(c.fetch_older(&id, 1).await.unwrap(), 1);
    assert_eq!(bodies(&c, &id).await, ["first"]);
    advance(2 * HOUR).await;
    assert_eq!(c.expire_now(&id).await.unwrap(), 1);
    assert!(!stored(&c, &id, &first).await.contains("\"body\""));
    let found = c.timestamp_to_event(&actor(CAROL), &id, at, Direction::Forward).await.unwrap();
    assert_eq!(found.0, kept, "nearer than what is here");
    assert_eq!(seen(&c, CAROL, &id).await, ["kept"]);
}

/// What lies before something that this server's own users said so long ago is asked for no more.
#[tokio::test(start_paused = true)]
async fn history_that_has_expired_for_certain_is_not_asked_for() {
    let net = Net::default();
    let (_, b, id) = two(&net, "11").await;
    let open = async || b.view(&id).await.unwrap().open_gaps(..).await.unwrap().len();
    assert_eq!(open().await, 1);
    advance(6 * DAY + 23 * HOUR).await;
    assert_eq!(open().await, 1);
    advance(HOUR).await;
    assert_eq!(open().await, 0);
}

/// What a redaction redacts is known after it has expired itself.
#[tokio::test(start_paused = true)]
async fn a_redaction_that_waits_outlives_its_own_expiry() {
    for version in ["1", "3", "11"] {
        let net = Net::default();
        let (a, _, id) = two(&net, version).await;
        let said = say(&a, ALICE, &id, "said").await;
        let c = third(&net, &id).await;
        let redaction = nearly_expired(&a, Draft::redaction(&said, Some("the reason")));
        let redaction = a.send(&actor(ALICE), &id, redaction, None).await.unwrap();
        net.deliver().await;
        advance(2 * HOUR).await;
        assert_eq!(c.expire_now(&id).await.unwrap(), 1);
        let left = stored(&c, &id, &redaction).await;
        assert!(!left.contains("the reason") && left.contains(said.as_str()), "version {version}: {left}");
        while c.fetch_older(&id, 50).await.unwrap() > 0 {}
        let view = c.view(&id).await.unwrap();
        let num = view.reader.event_num(view.nid, &said).await.unwrap().unwrap();
        assert!(view.load_one(num).await.unwrap().is_redacted(), "version {version}");
    }
}

/// Neither through another event nor on the way to another server.
#[tokio::test(start_paused = true)]
async fn what_has_expired_is_not_told_by_the_way() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let said = say(&a, ALICE, &id, "said").await;
    let late = a.send(&actor(ALICE), &id, nearly_expired(&a, text("late")), None).await.unwrap();
    let redaction = nearly_expired(&a, Draft::redaction(&said, Some("the reason")));
    a.send(&actor(ALICE), &id, redaction, None).await.unwrap();
    let redacted = async || a.event(&actor(ALICE), &id, &said).await.unwrap().to_string();
    assert!(redacted().await.contains("the reason"));
    advance(Duration::from_mins(2)).await;
    assert!(stored(&a, &id, &late).await.contains("late"), "it is still on the disk");
    let redacted = redacted().await;
    assert!(redacted.contains("redacted_because") && !redacted.contains("the reason"), "{redacted}");
    net.deliver().await;
    assert!(!stored(&b, &id, &late).await.contains("late"));
}
