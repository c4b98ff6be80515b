//! Devices of users of other servers.

use ruma::user_id;
use serde_json::json;

use super::{super::server, Signer, cross_signing::CrossSigning, device_keys, raw};
use crate::RemoteUpdate;

#[tokio::test]
async fn remote_devices_are_kept_as_fetched_without_the_bad_ones() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let signer = Signer::new(5);
    let good = (Some(raw(&device_keys(carol, "C1", &signer))), Some("Carol's".to_owned()));
    let foreign = (Some(raw(&device_keys(user_id!("@eve:elsewhere"), "C2", &signer))), None);
    let keys = CrossSigning::new(50);
    let update = RemoteUpdate {
        stream_id: Some(7),
        devices: [("C1".into(), Some(good)), ("C2".into(), Some(foreign))].into(),
        complete: true,
        master: Some(raw(&CrossSigning::key(carol, "master", &keys.master, None))),
        self_signing: Some(raw(&json!({ "user_id": "@eve:elsewhere" }))),
    };
    let same = RemoteUpdate { self_signing: None, ..update.clone() };
    assert!(accounts.update_remote(user_id!("@alice:hs1"), update.clone()).await.is_err());
    accounts.update_remote(carol, update).await.unwrap();
    let known = accounts.public_keys(Some(user_id!("@alice:hs1")), carol, &[]).await.unwrap();
    assert_eq!(known.devices.keys().collect::<Vec<_>>(), ["C1"]);
    assert!(known.master.is_some() && known.self_signing.is_none());
    assert!(!accounts.remote_list(carol).await.unwrap().unwrap().stale);

    let heard = async || {
        accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().unwrap().position
    };
    let before = heard().await;
    accounts.update_remote(carol, same).await.unwrap();
    assert_eq!(heard().await, before);

    accounts.mark_stale(carol).await.unwrap();
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    let list = accounts.remote_list(carol).await.unwrap().unwrap();
    assert!(list.stale && list.stream_id == 7);
    let update = RemoteUpdate { stream_id: Some(8), complete: true, ..RemoteUpdate::default() };
    accounts.update_remote(carol, update).await.unwrap();
    assert!(accounts.stale_lists(None, 10).await.unwrap().is_empty());
    assert!(accounts.public_keys(None, carol, &[]).await.unwrap().devices.is_empty());
    let before = heard().await;
    accounts.doubt_known(&[carol.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert_eq!(heard().await, before, "nobody is told yet");
    assert!(
        accounts.stale_lists(None, 10).await.unwrap().is_empty(),
        "nothing is fetched before somebody asks"
    );
    accounts.doubt_all().await.unwrap();
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    for stream_id in [9, 10] {
        accounts.miss_update(carol, stream_id).await.unwrap();
        assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);
    }
    assert_eq!(accounts.remote_list(carol).await.unwrap().unwrap().heard, [9, 10]);
    let told = heard().await;
    assert_ne!(told, before);
    accounts.miss_update(carol, 11).await.unwrap();
    assert_eq!(heard().await, told, "who was told is not told again");
}

#[tokio::test]
async fn a_whole_list_takes_away_signing_keys_that_are_no_more() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let keys = CrossSigning::new(50);
    let master = Some(raw(&CrossSigning::key(carol, "master", &keys.master, None)));
    let told = RemoteUpdate { master, complete: true, ..RemoteUpdate::default() };
    accounts.update_remote(carol, told).await.unwrap();
    let heard = async || {
        accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().unwrap().position
    };
    let has_master = async || accounts.public_keys(None, carol, &[]).await.unwrap().master.is_some();
    let before = heard().await;
    accounts.update_remote(carol, RemoteUpdate::default()).await.unwrap();
    assert!(has_master().await, "news of a device say nothing of them");
    for _ in 0..2 {
        let whole = RemoteUpdate { complete: true, ..RemoteUpdate::default() };
        accounts.update_remote(carol, whole).await.unwrap();
        assert!(!has_master().await);
    }
    let changes = accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().unwrap();
    assert_eq!(changes.previous, before, "told of once");
}

#[tokio::test]
async fn a_user_of_another_server_has_so_many_devices() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let named = |names: std::ops::Range<usize>, name: &str| -> RemoteUpdate {
        let device = |n| (format!("D{n:04}").into(), Some((None, Some(name.to_owned()))));
        RemoteUpdate { devices: names.map(device).collect(), ..RemoteUpdate::default() }
    };
    let ids = async || accounts.remote_device_ids(carol).await.unwrap();
    let all = RemoteUpdate { complete: true, ..named(0..999, "a") };
    accounts.update_remote(carol, all).await.unwrap();
    accounts.update_remote(carol, named(998..1_005, "b")).await.unwrap();
    assert_eq!((ids().await.len(), ids().await.last().unwrap().as_str()), (1_000, "D0999"));
    accounts.update_remote(carol, named(2_000..2_001, "c")).await.unwrap();
    assert_eq!(ids().await.last().unwrap().as_str(), "D0999", "no more are added");
    let gone = RemoteUpdate { devices: [("D0000".into(), None)].into(), ..RemoteUpdate::default() };
    accounts.update_remote(carol, gone).await.unwrap();
    accounts.update_remote(carol, named(2_000..2_001, "c")).await.unwrap();
    assert_eq!(ids().await.last().unwrap().as_str(), "D2000");
    let too_many = RemoteUpdate { complete: true, ..named(0..1_500, "d") };
    accounts.update_remote(carol, too_many).await.unwrap();
    assert_eq!(ids().await.len(), 1_000);
    let device = |length| ("D".repeat(length).into(), Some((None, None)));
    let devices = [255, 256].into_iter().map(device).collect();
    let long = RemoteUpdate { devices, complete: true, ..RemoteUpdate::default() };
    accounts.update_remote(carol, long).await.unwrap();
    assert_eq!(ids().await.iter().map(|id| id.as_str().len()).collect::<Vec<_>>(), [255]);
}

#[tokio::test]
async fn what_is_kept_of_remote_lists_tells_whom_to_tell_and_what_to_fetch() {
    let accounts = server();
    let carol = user_id!("@carol:elsewhere");
    let list =
        |stream_id| RemoteUpdate { stream_id: Some(stream_id), complete: true, ..RemoteUpdate::default() };
    let heard = async || {
        accounts.device_list_change(&accounts.store().read(), carol).await.unwrap().map(|c| c.position)
    };
    accounts.update_remote(carol, list(1)).await.unwrap();
    accounts.miss_update(carol, 2).await.unwrap();
    let told = heard().await;
    assert!(told.is_some());
    accounts.note_given(&[carol.to_owned()]).await.unwrap();
    accounts.miss_update(carol, 3).await.unwrap();
    let again = heard().await;
    assert_ne!(again, told, "somebody was given keys since");
    accounts.miss_update(carol, 4).await.unwrap();
    assert_eq!(heard().await, again);

    // What may have been written before the news leaves all as it is.
    assert!(!accounts.update_remote_while(carol, list(4), || false).await.unwrap());
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert_eq!(accounts.stale_lists(None, 10).await.unwrap(), [carol]);

    accounts.note_given(&[carol.to_owned()]).await.unwrap();
    accounts.update_remote(carol, list(4)).await.unwrap();
    let told = heard().await;
    assert_ne!(told, again, "what was given may differ");
    accounts.update_remote(carol, list(4)).await.unwrap();
    assert_eq!(heard().await, told);

    let dora = user_id!("@dora:elsewhere");
    accounts.doubt_known(&[carol.to_owned(), dora.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(carol).await.unwrap().unwrap().stale);
    assert!(accounts.remote_list(dora).await.unwrap().is_none());
    assert_eq!(heard().await, told, "nobody is told yet");
    accounts.note_given(&[dora.to_owned()]).await.unwrap();
    assert!(accounts.remote_list(dora).await.unwrap().unwrap().stale, "it was never fetched");
}
