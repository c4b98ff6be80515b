//! Threads, and whether one is told of them.

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    RoomState,
    reqwest::Url,
    ruma::{EventId, OwnedEventId, RoomId},
    store::ThreadSubscriptionStatus,
};
use matrix_sdk_ui::timeline::{RoomExt, Timeline, TimelineFocus};

use crate::{
    person::Person,
    steps::until_true,
    view::{bodies, open, say, shown},
};

/// Opens a thread.
async fn thread(person: &Person, room_id: &RoomId, root: &EventId) -> Result<Timeline> {
    let focus = TimelineFocus::Thread { root_event_id: root.to_owned() };
    let timeline = person.room(room_id)?.timeline_builder().with_focus(focus).build().await?;
    until_true(async || Ok(timeline.paginate_backwards(10).await?))
        .await
        .context("pagination of the thread")?;
    Ok(timeline)
}

/// A thread with an answer of each; gives the root.
async fn start(alice: &Person, bob: &Person, room_id: &RoomId, subject: &str) -> Result<OwnedEventId> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    let root = say(&ours, &theirs, subject).await?;
    let (ours, theirs) = (thread(alice, room_id, &root).await?, thread(bob, room_id, &root).await?);
    say(&theirs, &ours, "moi").await.context("first reply")?;
    say(&ours, &theirs, "merci").await.context("second reply")?;
    Ok(root)
}

/// Replies are in the thread, and the room shows how many there are.
pub(crate) async fn replies(alice: &Person, bob: &Person, room_id: &RoomId) -> Result<()> {
    let root = start(alice, bob, room_id, "qui rédige ?").await?;
    for person in [alice, bob] {
        let timeline = open(person, room_id).await?;
        shown(&timeline, &root, |item| {
            item.content().thread_summary().is_some_and(|summary| summary.num_replies == 2)
        })
        .await
        .context("summary")?;
        ensure!(
            !bodies(&timeline).await.contains(&"merci".to_owned()),
            "a reply is shown outside its thread"
        );
        let opened = thread(person, room_id, &root).await?;
        until_true(async || Ok(bodies(&opened).await == ["qui rédige ?", "moi", "merci"]))
            .await
            .context("the thread is not shown")?;
        let list = person.room(room_id)?.thread_list_service();
        list.paginate().await?;
        let listed = list.items();
        ensure!(listed.len() == 1 && listed[0].root_event.event_id == root, "{listed:?}");
        ensure!(listed[0].num_replies == 2, "{} replies are listed", listed[0].num_replies);
    }
    Ok(())
}

/// A subscription (MSC4306) is known to the other devices through the sync (MSC4308), and so is its end.
pub(crate) async fn subscriptions(alice: &Person, at: &Url, bob: &Person, room_id: &RoomId) -> Result<()> {
    let root = start(alice, bob, room_id, "qui préside ?").await?;
    let room = alice.room(room_id)?;
    ensure!(alice.client.enabled_thread_subscriptions().await?, "the server does not offer subscriptions");
    let second = Person::log_in(at).await?;
    second.sees(room_id, |room| room.state() == RoomState::Joined).await?;
    room.subscribe_thread(root.clone(), None).await?;
    let found = room.fetch_thread_subscription(root.clone()).await?.context("not subscribed")?;
    ensure!(!found.automatic, "subscribed by itself");
    told(&second, room_id, &root, ThreadSubscriptionStatus::Subscribed { automatic: false }).await?;
    room.unsubscribe_thread(root.clone()).await?;
    ensure!(room.fetch_thread_subscription(root.clone()).await?.is_none(), "still subscribed");
    told(&second, room_id, &root, ThreadSubscriptionStatus::Unsubscribed).await?;
    second.log_out().await
}

/// Waits until the sync has told a device of a subscription.
async fn told(
    person: &Person,
    room_id: &RoomId,
    root: &EventId,
    wanted: ThreadSubscriptionStatus,
) -> Result<()> {
    until_true(async || {
        let stored = person.client.state_store().load_thread_subscription(room_id, root).await?;
        Ok(stored.is_some_and(|stored| stored.status == wanted))
    })
    .await
    .with_context(|| format!("{wanted:?}"))
}
