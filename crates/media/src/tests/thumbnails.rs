//! Thumbnails: of what they are made, how large they are, whether they move.

use std::{io::Cursor, time::Duration};

use image::{DynamicImage, ImageFormat};
use ruma::server_name;

use super::{House, SMALL, alice, body, bytes, files, house, png};
use crate::{
    Config, Error, Media, Method, Reach, Wanted,
    animation::{self, tests::gif},
    picture,
};

async fn thumbnail(media: &Media, id: &str, animated: bool) -> (String, Vec<u8>) {
    let wanted = Wanted { animated, ..SMALL };
    let made = media
        .thumbnail(server_name!("a.test"), id, wanted, (Reach::Local, "@alice:a.test"), Duration::ZERO)
        .await
        .unwrap();
    (made.content_type.clone().unwrap(), bytes(made).await)
}

fn moves(bytes: &[u8]) -> bool {
    animation::moves(bytes, picture::seen(bytes, u64::MAX).unwrap())
}

#[tokio::test]
async fn thumbnails_are_made_of_pictures_and_of_nothing_else() {
    let House { media, .. } = &house(Config { max_pixels: 1_000_000, ..Config::default() }).await;
    let make = async |bytes: Vec<u8>| {
        let uri = media.upload(alice("image/png"), body(&bytes)).await.unwrap();
        let id = uri.media_id().unwrap().to_owned();
        media
            .thumbnail(server_name!("a.test"), &id, SMALL, (Reach::Local, "@alice:a.test"), Duration::ZERO)
            .await
    };
    let thumbnail = bytes(make(png(400, 200)).await.unwrap()).await;
    let thumbnail = image::load_from_memory(&thumbnail).unwrap();
    assert_eq!((thumbnail.width(), thumbnail.height()), (96, 96));
    let small = png(10, 10);
    assert_eq!(bytes(make(small.clone()).await.unwrap()).await, small);
    assert!(matches!(make(png(2_000, 1_000)).await, Err(Error::NoThumbnail)));
    assert!(matches!(make(b"<svg/>".to_vec()).await, Err(Error::NoThumbnail)));
    // Strips, which would be giants if they were blown up before they are cut.
    for strip in [png(200_000, 1), png(1, 200_000)] {
        let thumbnail = image::load_from_memory(&bytes(make(strip).await.unwrap()).await).unwrap();
        assert_eq!((thumbnail.width(), thumbnail.height()), (96, 96));
    }
}

#[tokio::test]
async fn thumbnails_move_only_for_those_who_ask() {
    let house = house(Config::default()).await;
    let media = &house.media;
    let make = async |bytes: &[u8], animated: bool| {
        let uri = media.upload(alice("image/gif"), body(bytes)).await.unwrap();
        let id = uri.media_id().unwrap().to_owned();
        thumbnail(media, &id, animated).await
    };
    let moving = gif(200, 200, 3);
    let (kind, bytes) = make(&moving, true).await;
    assert_eq!((kind.as_str(), moves(&bytes)), ("image/webp", true));
    for small in [moving, gif(20, 20, 3)] {
        let (kind, bytes) = make(&small, false).await;
        assert_ne!(kind, "image/gif");
        assert!(!moves(&bytes));
    }
    let small = gif(20, 20, 3);
    assert_eq!(make(&small, true).await, ("image/gif".to_owned(), small), "small enough as it is");
    let still = gif(20, 20, 1);
    assert_eq!(make(&still, false).await, ("image/gif".to_owned(), still));
}

#[tokio::test]
async fn a_picture_that_does_not_move_has_one_thumbnail_for_all() {
    let house = house(Config::default()).await;
    let uri = house.media.upload(alice("image/gif"), body(&gif(200, 200, 1))).await.unwrap();
    let id = uri.media_id().unwrap();
    let first = thumbnail(&house.media, id, true).await;
    assert_eq!(thumbnail(&house.media, id, false).await, first);
    assert_eq!(thumbnail(&house.media, id, true).await, first);
    assert_eq!(files(house.folder.path()), 2);
    house.media.delete(server_name!("a.test"), id).await.unwrap();
    assert_eq!(files(house.folder.path()), 0);
}

#[tokio::test]
async fn a_photo_is_put_the_right_way_up() {
    let house = house(Config::default()).await;
    let mut jpeg = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(1_000, 500).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    // Held sideways: orientation 6 of Exif.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let jpeg = jpeg.into_inner();
    let jpeg = [&jpeg[..2], &b"\xff\xe1"[..], &length[..], &exif[..], &jpeg[2..]].concat();
    let uri = house.media.upload(alice("image/jpeg"), body(&jpeg)).await.unwrap();
    let wanted = Wanted { width: 300, height: 200, method: Method::Scale, animated: false };
    let (own, id) = (server_name!("a.test"), uri.media_id().unwrap());
    let made = house
        .media
        .thumbnail(own, id, wanted, (Reach::Local, "@alice:a.test"), Duration::ZERO)
        .await
        .unwrap();
    let made = image::load_from_memory(&bytes(made).await).unwrap();
    assert_eq!((made.width(), made.height()), (120, 240));
}
