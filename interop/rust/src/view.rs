//! Looking at timelines.

use std::{pin::pin, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use matrix_sdk::ruma::{EventId, OwnedEventId, RoomId, events::room::message::RoomMessageEventContent};
use matrix_sdk_ui::{
    eyeball_im::Vector,
    timeline::{EventSendState, EventTimelineItem, RoomExt, Timeline, TimelineFocus, TimelineItem},
};

use crate::{
    person::Person,
    steps::{until, until_true},
};

/// Opens a room, as when it is tapped on: threads are shown apart.
pub(crate) async fn open(person: &Person, room_id: &RoomId) -> Result<Timeline> {
    person.sync.room_list_service().subscribe_to_rooms(&[room_id]).await;
    let focus = TimelineFocus::Live { hide_threaded_events: true };
    Ok(person.room(room_id)?.timeline_builder().with_focus(focus).build().await?)
}

/// Waits until an event is shown in a certain way, and gives it.
pub(crate) async fn shown(
    timeline: &Timeline,
    event_id: &EventId,
    look: impl Fn(&EventTimelineItem) -> bool,
) -> Result<EventTimelineItem> {
    until(async || Ok(timeline.item_by_event_id(event_id).await.filter(|item| look(item)))).await
}

/// The text of a message, if it is one.
pub(crate) fn body(item: &EventTimelineItem) -> Option<&str> {
    item.content().as_message().map(|message| message.body())
}

/// All texts shown, oldest first.
pub(crate) async fn bodies(timeline: &Timeline) -> Vec<String> {
    let items = timeline.items().await;
    items.iter().filter_map(|item| body(item.as_event()?).map(str::to_owned)).collect()
}

/// Sends a text that nobody has said in this room before; gives its id as soon as the server has given it one. It must be
/// shown before that.
pub(crate) async fn send(timeline: &Timeline, text: &str) -> Result<OwnedEventId> {
    let (mut items, changes) = timeline.subscribe().await;
    let mut changes = pin!(changes);
    timeline.send(RoomMessageEventContent::text_plain(text).into()).await?;
    let mut echoed = false;
    while let Some(diffs) = changes.next().await {
        for diff in diffs {
            diff.apply(&mut items);
            let Some(item) = newest(&items, text) else { continue };
            echoed |= item.is_local_echo();
            if let Some(EventSendState::SendingFailed { error, .. }) = item.send_state() {
                bail!("{text:?}: {error}");
            }
            // From the answer to the sending or from the sync, whichever comes first.
            if let Some(event_id) = item.event_id() {
                ensure!(echoed, "{text:?} was not shown before it was sent");
                return Ok(event_id.to_owned());
            }
        }
    }
    bail!("the timeline ended")
}

fn newest<'a>(items: &'a Vector<Arc<TimelineItem>>, text: &str) -> Option<&'a EventTimelineItem> {
    items.iter().rev().filter_map(|item| item.as_event()).find(|item| body(item) == Some(text))
}

/// Sends a text and waits until the other reads it, encrypted if the room is; gives its id.
pub(crate) async fn say(from: &Timeline, to: &Timeline, text: &str) -> Result<OwnedEventId> {
    let event_id = send(from, text).await?;
    let item = shown(to, &event_id, |item| body(item) == Some(text)).await?;
    ensure!(item.sender() == from.room().own_user_id(), "{event_id} is by {}", item.sender());
    let encrypted = to.room().latest_encryption_state().await?.is_encrypted();
    ensure!(
        item.encryption_info().is_some() == encrypted,
        "{event_id} travelled otherwise than the room wants"
    );
    shown(from, &event_id, |item| !item.is_local_echo()).await?;
    Ok(event_id)
}

/// Goes back to the beginning of the room.
pub(crate) async fn to_the_start(timeline: &Timeline) -> Result<()> {
    let mut pages = 0;
    until_true(async || {
        pages += 1;
        ensure!(pages < 100, "a room without a beginning");
        timeline.paginate_backwards(10).await.context("pagination")
    })
    .await
}
