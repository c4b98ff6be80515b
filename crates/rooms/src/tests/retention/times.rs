//! Times that are wrong: of events, of the clock.

use std::time::Duration;

use chappe_store::Tx;
use serde_json::json;
use tokio::time::advance;

use super::{
    super::net::{ALICE, BOB, CAROL, Net, actor, bodies, room, say, stored, text},
    DAY, DAY_MS, HOUR, dated, seen, server, third, two,
};
use crate::Error;

#[tokio::test(start_paused = true)]
async fn nobody_gains_by_lying_about_the_time() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    let now = a.0.world.now();
    for (body, at) in [("ahead", now + 3 * DAY_MS), ("behind", now - 8 * DAY_MS)] {
        a.send(&actor(ALICE), &id, dated(text(body), at), None).await.unwrap();
    }
    say(&a, ALICE, &id, "honest").await;
    net.deliver().await;
    for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
        assert_eq!(seen(rooms, who, &id).await, ["honest", "ahead"], "who dates back hurts nobody else");
    }
    advance(7 * DAY + HOUR).await;
    for (rooms, who) in [(&a, ALICE), (&b, BOB)] {
        rooms.expire_due().await.unwrap();
        assert!(seen(rooms, who, &id).await.is_empty());
        assert!(bodies(rooms, &id).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn who_dates_back_does_not_hide_what_others_said_before() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    say(&b, BOB, &id, "kept").await;
    net.deliver().await;
    for number in 0..60 {
        a.send(&actor(ALICE), &id, dated(text(&number.to_string()), 0), None).await.unwrap();
    }
    say(&a, ALICE, &id, "after").await;
    net.deliver().await;
    let c = third(&net, &id).await;
    assert_eq!(seen(&c, CAROL, &id).await, ["after", "kept"]);
    assert!(c.view(&id).await.unwrap().open_gaps(..).await.unwrap().is_empty(), "all has come");
}

/// An event of before it was noted when events came that claim to be of a later time.
#[tokio::test(start_paused = true)]
async fn an_old_lie_does_not_keep_the_rest() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    let ahead = a.0.world.now() + 1_000 * DAY_MS;
    let lie = a.send(&actor(ALICE), &id, dated(text("ahead"), ahead), None).await.unwrap();
    let view = a.view(&id).await.unwrap();
    let num = view.reader.event_num(view.nid, &lie).await.unwrap().unwrap();
    let (nid, mut meta) = (view.nid, view.reader.event_meta(view.nid, num).await.unwrap());
    drop(view);
    meta.came = 0;
    let mut tx = Tx::new();
    tx.update_event(nid, num, &meta);
    a.store().commit(tx).await.unwrap();
    say(&a, ALICE, &id, "later").await;
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["ahead"], "from now on it counts");
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert!(bodies(&a, &id).await.is_empty());
}

/// What is hidden by a clock that is wrong for a while is shown again: nothing is taken off the disk for an hour.
#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_ahead_takes_nothing_away() {
    let net = Net::default();
    let a = server(&net, "a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let said = say(&a, ALICE, &id, "said").await;
    let is_kept = async || stored(&a, &id, &said).await.contains("\"body\"");
    a.expire_due().await.unwrap();
    a.0.world.set_clock_ahead(30 * DAY);
    assert!(seen(&a, ALICE, &id).await.is_empty(), "hiding follows the clock");
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert!(matches!(a.expire_now(&id).await, Err(Error::BadState(_))));
    assert!(is_kept().await);
    a.0.world.set_clock_ahead(Duration::ZERO);
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(seen(&a, ALICE, &id).await, ["said"]);
    // One that was set for good is followed in the end.
    a.0.world.set_clock_ahead(30 * DAY);
    a.expire_due().await.unwrap();
    assert!(is_kept().await);
    advance(HOUR).await;
    a.expire_due().await.unwrap();
    assert!(!is_kept().await);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_ahead_does_not_say_when_rooms_are_looked_at() {
    let net = Net::default();
    let a = server(&net, "a.example", 1);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let due = async || a.view(&id).await.unwrap().head.keeping.due;
    let before = due().await;
    a.0.world.set_clock_ahead(3 * DAY);
    assert_eq!(a.expire_due().await.unwrap(), None);
    assert_eq!(due().await, before);
}

/// When a room is looked at is not told by a clock that is wrong: what is said there would stay on the disk until then.
#[tokio::test(start_paused = true)]
async fn what_was_said_while_the_clock_ran_ahead_goes_in_time() {
    let net = Net::default();
    let a = server(&net, "a.example", 1);
    a.0.world.set_clock_ahead(300 * DAY);
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let said = say(&a, ALICE, &id, "said").await;
    let is_kept = async || stored(&a, &id, &said).await.contains("\"body\"");
    a.0.world.set_clock_ahead(Duration::ZERO);
    assert_eq!(a.expire_due().await.unwrap(), None);
    for _ in 0..2 {
        // The room's time is told, then it is looked at.
        advance(HOUR).await;
        assert!(a.expire_due().await.unwrap().is_some());
        assert!(is_kept().await);
    }
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert!(!is_kept().await);
}
