//! Files: quarantine, protection, deleting, lists.

use serde_json::{Value, json};

use super::{super::media, Home, User, at};

/// Uploads; gives the part of the address after `mxc://`.
async fn upload(user: &User<'_>, bytes: &[u8]) -> String {
    let said = media::upload(user, "text/plain", "f.txt", bytes).await.ok();
    said["content_uri"].as_str().unwrap().trim_start_matches("mxc://").to_owned()
}

fn download(place: &str) -> String {
    format!("/_matrix/client/v1/media/download/{place}")
}

#[tokio::test]
async fn what_is_under_quarantine_is_given_to_nobody_under_any_address() {
    let home = Home::new().await;
    let (admin, bob, carol) =
        (home.administrator("admin1").await, home.user("bob").await, home.user("carol").await);
    let (bad, same, good) =
        (upload(&bob, b"bad").await, upload(&carol, b"bad").await, upload(&bob, b"good").await);
    admin.post(&at(&format!("/v1/media/quarantine/{bad}")), json!({})).await.ok();
    let later = upload(&carol, b"bad").await;
    for place in [&bad, &same, &later] {
        for who in [&bob, &admin] {
            who.get(&download(place)).await.refused(404, "M_NOT_FOUND");
        }
        let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{place}?width=10&height=10");
        bob.get(&thumbnail).await.refused(404, "M_NOT_FOUND");
        let info = admin.get(&at(&format!("/v1/media/{place}"))).await.ok();
        assert_eq!(info["media_info"]["quarantined_by"], json!(admin.id), "{info}");
    }
    assert_eq!(bob.get(&download(&good)).await.bytes, b"good");
    admin.post(&at(&format!("/v1/media/unquarantine/{same}")), json!({})).await.ok();
    for place in [&bad, &same, &later] {
        assert_eq!(bob.get(&download(place)).await.bytes, b"bad");
    }
    admin.post(&at("/v1/media/quarantine/a.test/unknown"), json!({})).await.refused(404, "M_NOT_FOUND");
    // What is not here yet is never fetched.
    admin.post(&at("/v1/media/quarantine/b.test/far"), json!({})).await.ok();
    bob.get(&download("b.test/far")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn protected_files_stay_when_a_room_or_a_user_is_put_under_quarantine() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let (sticker, picture, alone) =
        (upload(&bob, b"sticker").await, upload(&bob, b"picture").await, upload(&bob, b"alone").await);
    let id = sticker.split_once('/').unwrap().1;
    admin.post(&at(&format!("/v1/media/protect/{id}")), json!({})).await.ok();
    let room = bob.room(json!({})).await;
    for (txn, place) in [("1", &sticker), ("2", &picture)] {
        let image = json!({ "msgtype": "m.image", "body": "x", "url": format!("mxc://{place}") });
        bob.put(&format!("/rooms/{room}/send/m.room.message/{txn}"), image).await.ok();
    }
    let listed = admin.get(&at(&format!("/v1/room/{room}/media"))).await.ok();
    let mut named = [format!("mxc://{sticker}"), format!("mxc://{picture}")];
    named.sort();
    assert_eq!(listed, json!({ "local": named, "remote": [] }));
    let done = admin.post(&at(&format!("/v1/room/{room}/media/quarantine")), json!({})).await.ok();
    assert_eq!(done, json!({ "num_quarantined": 1 }));
    bob.get(&download(&picture)).await.refused(404, "M_NOT_FOUND");
    assert_eq!(bob.get(&download(&sticker)).await.bytes, b"sticker");
    let done = admin.post(&at(&format!("/v1/user/{}/media/quarantine", bob.id)), json!({})).await.ok();
    assert_eq!(done, json!({ "num_quarantined": 2 }));
    bob.get(&download(&alone)).await.refused(404, "M_NOT_FOUND");
    admin.post(&at(&format!("/v1/media/unprotect/{id}")), json!({})).await.ok();
    admin.post(&at(&format!("/v1/media/quarantine/{sticker}")), json!({})).await.ok();
    bob.get(&download(&sticker)).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn files_are_listed_counted_and_deleted() {
    let home = Home::new().await;
    let (admin, bob) = (home.administrator("admin1").await, home.user("bob").await);
    let (small, large) = (upload(&bob, b"s").await, upload(&bob, b"large").await);
    let of_bob = at(&format!("/v1/users/{}/media", bob.id));
    let listed = admin.get(&format!("{of_bob}?order_by=media_length&dir=b")).await.ok();
    assert_eq!((&listed["total"], &listed["media"][0]["media_length"]), (&json!(2), &json!(5)));
    let usage = admin.get(&at("/v1/statistics/users/media")).await.ok();
    let line = &usage["users"][0];
    assert_eq!(
        (&usage["total"], &line["media_count"], &line["media_length"]),
        (&json!(1), &json!(2), &json!(6))
    );
    assert_eq!(admin.get(&at("/v1/statistics/users/media?search_term=nobody")).await.ok()["total"], 0);
    let info = admin.get(&at(&format!("/v1/media/{small}"))).await.ok()["media_info"].clone();
    assert_eq!((&info["user_id"], info["sha256"].as_str().unwrap().len()), (&json!(bob.id), 64));

    let id = |place: &str| place.split_once('/').unwrap().1.to_owned();
    assert_eq!(
        admin.delete(&at(&format!("/v1/media/{small}"))).await.ok(),
        json!({ "deleted_media": [id(&small)], "total": 1 })
    );
    bob.get(&download(&small)).await.refused(404, "M_NOT_FOUND");
    admin.delete(&at(&format!("/v1/media/{small}"))).await.refused(404, "M_NOT_FOUND");
    let avatar = upload(&bob, b"my picture").await;
    bob.put(&format!("/profile/{}/avatar_url", bob.id), json!({ "avatar_url": format!("mxc://{avatar}") }))
        .await
        .ok();
    let far = 32_503_680_000_000_u64;
    let deleted =
        admin.post(&at(&format!("/v1/media/delete?before_ts={far}&size_gt=2")), json!({})).await.ok();
    assert_eq!(deleted, json!({ "deleted_media": [id(&large)], "total": 1 }));
    assert_eq!(bob.get(&download(&avatar)).await.bytes, b"my picture");
    admin
        .post(&at("/v1/media/delete?before_ts=1600000000"), Value::Null)
        .await
        .refused(400, "M_INVALID_PARAM");
    admin.post(&at("/v1/media/delete"), Value::Null).await.refused(400, "M_MISSING_PARAM");
    assert_eq!(
        admin.post(&at(&format!("/v1/purge_media_cache?before_ts={far}")), json!({})).await.ok(),
        json!({ "deleted": 0 })
    );
    assert_eq!(admin.delete(&of_bob).await.ok()["total"], 1);
    assert_eq!(admin.get(&of_bob).await.ok(), json!({ "media": [], "total": 0 }));
}
