//! Files and pictures.

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    attachment::{AttachmentInfo, BaseImageInfo, Thumbnail},
    media::{MediaFormat, MediaRequestParameters, MediaThumbnailSettings},
    ruma::{
        RoomId, UInt,
        api::client::media::get_content_thumbnail::v3::Method,
        events::room::{MediaSource, message::MessageType},
        uint,
    },
};
use matrix_sdk_ui::timeline::{AttachmentConfig, AttachmentSource, EventTimelineItem};

use crate::{
    person::Person,
    steps::{until, until_true},
    view::open,
};

/// 96 by 64 pixels.
const PICTURE: &[u8] = include_bytes!("picture.png");
const NAME: &str = "sémaphore.png";

/// A picture travels with its thumbnail, both encrypted, and comes back as it was.
pub(crate) async fn encrypted(alice: &Person, bob: &Person, room_id: &RoomId) -> Result<()> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    // No picture, but big enough for more than one read. The server must not care: it is encrypted.
    let file: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let config = AttachmentConfig {
        info: Some(AttachmentInfo::Image(BaseImageInfo {
            size: UInt::new(file.len() as u64),
            ..BaseImageInfo::default()
        })),
        thumbnail: Some(Thumbnail {
            data: PICTURE.to_vec(),
            content_type: "image/png".parse()?,
            height: uint!(64),
            width: uint!(96),
            size: UInt::new(PICTURE.len() as u64).context("size")?,
        }),
        ..AttachmentConfig::default()
    };
    let source = AttachmentSource::Data { bytes: file.clone(), filename: NAME.to_owned() };
    ours.send_attachment(source, "image/png".parse()?, config).use_send_queue().await?;
    let (picture, thumbnail) =
        until(async || Ok(theirs.items().await.iter().filter_map(|item| item.as_event()).find_map(sources)))
            .await?;
    for (source, wanted) in [(picture, file.as_slice()), (thumbnail, PICTURE)] {
        ensure!(matches!(source, MediaSource::Encrypted(_)), "uploaded in clear");
        let request = MediaRequestParameters { source, format: MediaFormat::File };
        let found = bob.client.media().get_media_content(&request, false).await?;
        ensure!(found == wanted, "{} bytes came back different", wanted.len());
    }
    Ok(())
}

/// Where the picture is, and its thumbnail.
fn sources(item: &EventTimelineItem) -> Option<(MediaSource, MediaSource)> {
    match item.content().as_message()?.msgtype() {
        MessageType::Image(image) if image.body == NAME => {
            Some((image.source.clone(), image.info.as_ref()?.thumbnail_source.clone()?))
        }
        _ => None,
    }
}

/// An avatar is asked for in the size in which it is shown.
pub(crate) async fn avatar(alice: &Person, bob: &Person) -> Result<()> {
    let uri = alice.client.account().upload_avatar(&"image/png".parse()?, PICTURE.to_vec()).await?;
    until_true(async || {
        let profile = bob.client.account().fetch_user_profile_of(&alice.user_id()).await?;
        Ok(profile.get("avatar_url").and_then(|url| url.as_str()) == Some(uri.as_str()))
    })
    .await?;
    let source = MediaSource::Plain(uri);
    let size = MediaThumbnailSettings::with_method(Method::Crop, uint!(32), uint!(32));
    let small = MediaRequestParameters { source: source.clone(), format: MediaFormat::Thumbnail(size) };
    let whole = MediaRequestParameters { source, format: MediaFormat::File };
    let media = bob.client.media();
    ensure!(media.get_media_content(&whole, false).await? == PICTURE, "the avatar came back different");
    let small = media.get_media_content(&small, false).await?;
    ensure!(!small.is_empty() && small != PICTURE, "the thumbnail is the picture");
    Ok(())
}
