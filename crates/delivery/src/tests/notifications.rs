//! Pages of notifications get on, however many rooms went on since.

use super::house::House;
use crate::NotificationsRequest;

#[tokio::test]
async fn rooms_that_went_on_do_not_hide_what_was_before() {
    let house = House::new();
    let (alice, bob, room) = house.couple().await;
    bob.say(&room, "told").await;
    let from = house.store.read().position();
    for _ in 0..201 {
        let room = alice.room(&[]).await;
        alice.say(&room, "since").await;
    }
    let request = NotificationsRequest {
        from: Some(format!("n1_{from}_{}_0", u32::MAX)),
        limit: 10,
        only_highlights: false,
    };
    let page = house.delivery.notifications(&alice.id, &request).await.unwrap();
    assert_eq!(page.list.len(), 1, "{:?}", page.next);
    assert!(page.list[0].event.get().contains("told") && page.next.is_none());
}
