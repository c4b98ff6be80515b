//! The room list, as it is shown on the first screen.

use std::pin::pin;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use matrix_sdk::{
    Room,
    reqwest::Url,
    ruma::{
        OwnedRoomId,
        api::client::{receipt::create_receipt::v3::ReceiptType, room::create_room::v3::Request},
        assign,
        events::room::message::RoomMessageEventContent,
    },
};
use matrix_sdk_ui::{
    eyeball_im::Vector,
    room_list_service::{RoomListItem, RoomListLoadingState, filters::new_filter_non_left},
};

use crate::{
    person::Person,
    steps::until_true,
    view::{bodies, open, send},
};

/// More than the first window of the SDK, which is 20.
const ROOMS: usize = 25;
/// How the names of these begin.
const NUMBERED: &str = "salle";

/// Nothing is there, and the list says so.
pub(crate) async fn empty(person: &Person) -> Result<()> {
    until_true(async || Ok(count(person).await? == Some(0))).await
}

/// How many rooms the server says there are, once it has said so.
async fn count(person: &Person) -> Result<Option<u32>> {
    let list = person.sync.room_list_service().all_rooms().await?;
    Ok(match list.loading_state().get() {
        RoomListLoadingState::NotLoaded => None,
        RoomListLoadingState::Loaded { maximum_number_of_rooms } => maximum_number_of_rooms,
    })
}

/// The names of the numbered rooms, in the order in which they are listed.
async fn listed(person: &Person) -> Result<Vec<String>> {
    let list = person.sync.room_list_service().all_rooms().await?;
    let (changes, control) = list.entries_with_dynamic_adapters(1000);
    let mut changes = pin!(changes);
    control.set_filter(Box::new(new_filter_non_left()));
    let mut rooms = Vector::<RoomListItem>::new();
    for diff in changes.next().await.context("the room list ended")? {
        diff.apply(&mut rooms);
    }
    let names = rooms.iter().filter_map(|room| Some(room.cached_display_name()?.to_string()));
    Ok(names.filter(|name| name.starts_with(NUMBERED)).collect())
}

/// Waits until the numbered rooms are listed so.
async fn lists(person: &Person, wanted: &[String]) -> Result<()> {
    match until_true(async || Ok(listed(person).await? == wanted)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("listed {:?}, wanted {wanted:?}", listed(person).await?))),
    }
}

/// A new device sees rooms beyond the first window, the last one spoken in first.
pub(crate) async fn order(person: &Person, at: &Url) -> Result<()> {
    let mut made = Vec::new();
    for n in 0..ROOMS {
        let request = assign!(Request::new(), { name: Some(format!("{NUMBERED} {n}")) });
        made.push(person.client.create_room(request).await?);
    }
    let mut wanted: Vec<String> = (0..ROOMS).rev().map(|n| format!("{NUMBERED} {n}")).collect();
    let second = Person::log_in(at).await?;
    lists(&second, &wanted).await.context("as they were made")?;
    ensure!(
        count(&second).await? == u32::try_from(ROOMS + 1).ok(),
        "{:?} rooms are counted",
        count(&second).await?
    );
    made[3].send(RoomMessageEventContent::text_plain("la plus récente")).await?;
    let moved = wanted.remove(ROOMS - 1 - 3);
    wanted.insert(0, moved);
    for person in [&second, person] {
        lists(person, &wanted).await.context("as they were spoken in")?;
    }
    made[3].set_name("salle rebaptisée".to_owned()).await?;
    until_true(async || Ok(listed(&second).await?.contains(&"salle rebaptisée".to_owned()))).await?;
    second.log_out().await
}

/// What the other says is counted until it is read.
pub(crate) async fn unread(alice: &Person, bob: &Person, room_id: &OwnedRoomId) -> Result<()> {
    let room = alice.room(room_id)?;
    let said = open(bob, room_id).await?;
    for n in 1..=3 {
        send(&said, &format!("non lu {n}")).await?;
        counted(&room, n).await?;
    }
    let read = open(alice, room_id).await?;
    until_true(async || Ok(bodies(&read).await.contains(&"non lu 3".to_owned()))).await?;
    ensure!(read.mark_as_read(ReceiptType::Read).await?, "no receipt was sent");
    counted(&room, 0).await
}

/// Waits until the server and the SDK count alike.
async fn counted(room: &Room, wanted: u64) -> Result<()> {
    let counts = || [room.unread_notification_counts().notification_count, room.num_unread_messages()];
    until_true(async || Ok(counts() == [wanted, wanted]))
        .await
        .with_context(|| format!("{wanted} unread: server and SDK say {:?}", counts()))
}
