//! Rooms and what is said in them.

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    RoomState,
    reqwest::Url,
    room::edit::EditedContent,
    ruma::{
        OwnedEventId, OwnedRoomId, RoomId,
        api::client::{
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::{Request, RoomPreset},
        },
        assign,
        events::{
            InitialStateEvent,
            room::{encryption::RoomEncryptionEventContent, message::RoomMessageEventContentWithoutRelation},
        },
    },
};
use matrix_sdk_ui::timeline::{EventTimelineItem, ReactionStatus, Timeline, TimelineDetails};

use crate::{
    person::Person,
    steps::{until, until_true},
    view::{bodies, body, open, say, send, shown, to_the_start},
};

/// Messages in each direction: more than the timeline that the SDK asks for at first, which is 20.
const PAIRS: usize = 12;

/// A private room with both inside.
pub(crate) async fn meet(alice: &Person, bob: &Person, encrypted: bool) -> Result<OwnedRoomId> {
    let name = if encrypted { "chiffré" } else { "en clair" };
    let encryption =
        InitialStateEvent::with_empty_state_key(RoomEncryptionEventContent::with_recommended_defaults());
    let request = assign!(Request::new(), {
        preset: Some(RoomPreset::PrivateChat),
        name: Some(name.to_owned()),
        invite: vec![bob.user_id()],
        initial_state: if encrypted { vec![encryption.to_raw_any()] } else { vec![] },
    });
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    let invited =
        bob.sees(&room_id, |room| room.state() == RoomState::Invited).await.context("invitation")?;
    let shown_name = until(async || Ok(invited.cached_display_name())).await?;
    ensure!(shown_name.to_string() == name, "invited to {shown_name}");
    let inviter = invited.invite_details().await?.inviter.context("invited by nobody")?;
    ensure!(inviter.user_id() == alice.user_id(), "invited by {}", inviter.user_id());
    invited.join().await?;
    let joined = bob.sees(&room_id, |room| room.state() == RoomState::Joined).await.context("join")?;
    until_true(async || Ok(joined.latest_encryption_state().await?.is_encrypted() == encrypted)).await?;
    alice.sees(&room_id, |room| room.joined_members_count() == 2).await.context("two members")?;
    Ok(room_id)
}

/// What one sends is shown at once, then as the server has it.
pub(crate) async fn echo(person: &Person, room_id: &RoomId) -> Result<()> {
    let timeline = open(person, room_id).await?;
    let event_id = send(&timeline, "écho").await?;
    let item = shown(&timeline, &event_id, |item| !item.is_local_echo()).await?;
    ensure!(item.is_own() && body(&item) == Some("écho"), "another event came back: {item:?}");
    let times =
        timeline.items().await.iter().filter(|item| item.as_event().and_then(body) == Some("écho")).count();
    ensure!(times == 1, "the echo is shown {times} times");
    Ok(())
}

/// A few messages in each direction.
pub(crate) async fn both_ways(one: &Person, two: &Person, room_id: &RoomId) -> Result<()> {
    let device = one.client.device_id().context("not logged in")?;
    let (one, two) = (open(one, room_id).await?, open(two, room_id).await?);
    for n in 0..3 {
        say(&one, &two, &format!("aller {n}, {device}")).await?;
        say(&two, &one, &format!("retour {n}, {device} 🗼")).await?;
    }
    Ok(())
}

/// What refers to a message changes how the other sees it.
pub(crate) async fn relations(alice: &Person, bob: &Person, room_id: &RoomId) -> Result<()> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    let said = say(&ours, &theirs, "à dix heures").await?;
    let own = shown(&ours, &said, |item| item.is_editable()).await?.identifier();

    let edited = RoomMessageEventContentWithoutRelation::text_plain("à onze heures");
    ours.edit(&own, EditedContent::RoomMessage(edited)).await?;
    let is_edited = |item: &EventTimelineItem| {
        item.content()
            .as_message()
            .is_some_and(|message| message.is_edited() && message.body() == "à onze heures")
    };
    for timeline in [&theirs, &ours] {
        shown(timeline, &said, is_edited).await.context("edit")?;
    }

    react(&ours, &theirs, &said, bob).await.context("reaction")?;
    reply(&ours, &theirs, &said).await.context("reply")?;

    ours.redact(&own, Some("erreur")).await?;
    for timeline in [&theirs, &ours] {
        shown(timeline, &said, |item| item.content().is_redacted()).await.context("redaction")?;
    }
    Ok(())
}

/// A reaction comes and goes again.
async fn react(ours: &Timeline, theirs: &Timeline, said: &OwnedEventId, bob: &Person) -> Result<()> {
    let (item, user_id) = (shown(theirs, said, |_| true).await?.identifier(), bob.user_id());
    let reaction = |item: &EventTimelineItem| {
        let by_key = item.content().reactions().and_then(|reactions| reactions.get("👍"));
        by_key.and_then(|senders| senders.get(&user_id)).map(|reaction| reaction.status.clone())
    };
    let reacted = |item: &EventTimelineItem| reaction(item).is_some();
    ensure!(theirs.toggle_reaction(&item, "👍").await?, "the reaction was taken away");
    shown(ours, said, reacted).await?;
    // It can be taken back once it has an id.
    shown(theirs, said, |item| matches!(reaction(item), Some(ReactionStatus::RemoteToRemote(_)))).await?;
    ensure!(!theirs.toggle_reaction(&item, "👍").await?, "the reaction was made again");
    shown(ours, said, |item| !reacted(item)).await?;
    Ok(())
}

/// A reply shows what it replies to.
async fn reply(ours: &Timeline, theirs: &Timeline, said: &OwnedEventId) -> Result<()> {
    let content = RoomMessageEventContentWithoutRelation::text_plain("d'accord");
    theirs.send_reply(content, said.clone()).await?;
    until_true(async || {
        let items = ours.items().await;
        let found =
            items.iter().filter_map(|item| item.as_event()).find(|item| body(item) == Some("d'accord"));
        let Some(details) = found.and_then(|item| item.content().in_reply_to()) else { return Ok(false) };
        ensure!(details.event_id == *said, "the reply is to {}", details.event_id);
        Ok(match details.event {
            TimelineDetails::Ready(event) => {
                event.content.as_message().is_some_and(|message| message.body() == "à onze heures")
            }
            _ => false,
        })
    })
    .await
}

/// What is no event arrives too.
pub(crate) async fn fleeting(alice: &Person, bob: &Person, room_id: &RoomId) -> Result<()> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    let (_handle, mut typing) = ours.room().subscribe_to_typing_notifications();
    for is_typing in [true, false] {
        until_true(async || {
            // Of somebody who goes on typing the SDK says so again every few seconds.
            theirs.room().typing_notice(is_typing).await?;
            while let Ok(users) = typing.try_recv() {
                if users.contains(&bob.user_id()) == is_typing {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
        .with_context(|| format!("typing: {is_typing}"))?;
    }
    let said = say(&ours, &theirs, "lu ?").await?;
    ensure!(theirs.send_single_receipt(ReceiptType::Read, said.clone()).await?, "no receipt was sent");
    shown(&ours, &said, |item| item.read_receipts().contains_key(&bob.user_id())).await?;
    Ok(())
}

/// A device that has just been logged in reads the room back to its beginning.
pub(crate) async fn pagination(alice: &Person, at: &Url, bob: &Person, room_id: &RoomId) -> Result<()> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    for n in 0..PAIRS {
        say(&ours, &theirs, &format!("page {n}")).await?;
        say(&theirs, &ours, &format!("page {n} bis")).await?;
    }
    let second = Person::log_in(at).await?;
    second.sees(room_id, |room| room.state() == RoomState::Joined).await?;
    let timeline = open(&second, room_id).await?;
    to_the_start(&timeline).await?;
    let (wanted, found) = (bodies(&ours).await, bodies(&timeline).await);
    let pages: Vec<_> = found.iter().filter(|text| text.starts_with("page")).collect();
    ensure!(pages.len() == 2 * PAIRS, "{} of {} messages came", pages.len(), 2 * PAIRS);
    ensure!(found.ends_with(&wanted), "the order is {found:?}, wanted {wanted:?}");
    ensure!(timeline.items().await.iter().any(|item| item.is_timeline_start()), "the beginning is not shown");
    second.log_out().await
}
