//! The allow-list over a real store.
#![expect(clippy::unwrap_used, reason = "a test that goes wrong should stop at once")]

use chappe_identity::{AllowList, Email, Imported};
use chappe_kv::Memory;
use chappe_store::Store;
use chappe_world::{Fake, FakeNet, World};

async fn list(store: &Store) -> AllowList {
    AllowList::open(store.clone(), World::fake(Fake::new("hs", 1, &FakeNet::default()))).await.unwrap()
}

fn allowed(list: &AllowList, address: &str) -> bool {
    list.check(&Email::parse(address).unwrap()).is_some()
}

#[tokio::test]
async fn changes_take_effect_at_once_and_stay() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let first = list(&store).await;
    assert!(!allowed(&first, "a@dinum.gouv.fr"));
    let rule = "dinum.gouv.fr".parse().unwrap();
    assert!(first.add(&rule, "ticket 7").await.unwrap());
    assert!(!first.add(&rule, "again").await.unwrap());
    assert!(allowed(&first, "a@dinum.gouv.fr"));

    let again = list(&store).await;
    assert!(allowed(&again, "a@dinum.gouv.fr"));
    let listed = again.list().await.unwrap();
    assert_eq!((listed[0].rule.clone(), listed[0].note.as_str()), (rule.clone(), "ticket 7"));

    assert!(again.remove(&rule).await.unwrap());
    assert!(!again.remove(&rule).await.unwrap());
    assert!(!allowed(&again, "a@dinum.gouv.fr"));
    assert!(allowed(&first, "a@dinum.gouv.fr"), "another handle sees it after a refresh");
    first.refresh().await.unwrap();
    assert!(!allowed(&first, "a@dinum.gouv.fr"));
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_names_the_line() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let list = list(&store).await;
    let wrong = "gouv.fr\n# comment\nnot a domain\n";
    let error = list.import(wrong).await.unwrap_err().to_string();
    assert!(error.starts_with("line 3: ") && error.contains("not a domain"), "{error}");
    assert_eq!(list.list().await.unwrap().len(), 0);

    let text = "gouv.fr # all\r\n\n*.gouv.fr\nGOUV.FR\njean@x.fr\n";
    assert_eq!(list.import(text).await.unwrap(), Imported { added: 3, known: 0 });
    assert_eq!(list.import(text).await.unwrap(), Imported { added: 0, known: 3 });
    assert!(allowed(&list, "b@x.gouv.fr") && allowed(&list, "jean@x.fr") && !allowed(&list, "b@x.fr"));
}

#[tokio::test]
async fn a_long_list_is_read_whole() {
    let store = Store::new(chappe_kv::Db::new(Memory::default()));
    let list = list(&store).await;
    let text = (0..2500).map(|n| format!("d{n}.gouv.fr")).collect::<Vec<_>>().join("\n");
    assert_eq!(list.import(&text).await.unwrap().added, 2500);
    assert_eq!(list.list().await.unwrap().len(), 2500);
    assert!(allowed(&list, "a@d2499.gouv.fr") && allowed(&list, "a@d0.gouv.fr"));
}
