//! What the identity services of a network tell each other, and whose invitations let somebody in.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed, time::Duration};

use chappe_accounts::{Erase, NewUser};
use chappe_identity::{Config, Error, HomeserverError, Invitation, Message, Profile};
use chappe_store::Store;
use ruma::{OwnedUserId, RoomId, ServerName, UserId, user_id};
use serde_json::{Map, Value, json};

use crate::{BOB, Lab, SERVER, bob, email, invitation, memory, target};

fn agents() -> Config {
    Config { profile: Profile::Agents, ..Config::default() }
}

/// The partners' server of a network, and the agents' server `b.example` beside it.
async fn partners(store: Store) -> Lab {
    let lab = Lab::with(agents(), store, 0).await;
    let map = lab.identity().map();
    map.put(&"agents.fr".parse().unwrap(), &target("b.example", false)).await.unwrap();
    map.put(&"*".parse().unwrap(), &target(SERVER, true)).await.unwrap();
    lab
}

impl Lab {
    async fn hear(&self, origin: &str, message: Value) -> Result<(), Error> {
        let message: Message = serde_json::from_value(message).unwrap();
        self.service.hear(&ServerName::parse(origin).unwrap(), message).await
    }

    /// What was told since this was asked last: to whom, what, of whom.
    fn told(&self) -> Vec<(String, String, Value)> {
        let notices = std::mem::take(&mut *self.homeservers.notices.lock());
        let one = |(to, message): (String, Value)| {
            let (what, said) = message.as_object().unwrap().iter().next().unwrap();
            (to, what.clone(), said.clone())
        };
        notices.into_iter().map(one).collect()
    }

    async fn later(&self, wait: Duration) {
        tokio::time::advance(wait).await;
        self.service.work().await.unwrap();
    }
}

fn invited(sender: &str, address: &str) -> Value {
    json!({ "invited": { "medium": "email", "address": address, "token": "tok", "room_id": "!r:b.example",
        "sender": sender, "expires_at": u64::MAX >> 12 } })
}

fn by(sender: &str, address: &str) -> Invitation {
    Invitation { sender: UserId::parse(sender).unwrap(), told: Map::new(), ..invitation(address) }
}

/// What an agents' server and the partners' server tell each other, carried by hand.
#[tokio::test(start_paused = true)]
async fn servers_of_a_network_know_of_each_others_invitations_and_addresses() {
    let lab = partners(memory()).await;
    let b = ServerName::parse("b.example").unwrap();
    let hear = async |origin: &str, message: Value| lab.hear(origin, message).await;
    let stranger = hear("evil.example", invited("@x:evil.example", "paul@partner.fr")).await;
    assert!(matches!(stranger, Err(Error::NotTrusted)));
    let for_others = hear("b.example", invited("@x:a.example", "paul@partner.fr")).await;
    assert!(matches!(for_others, Err(Error::Invalid(_))), "in the name of another server's user");
    let misplaced = hear("b.example", invited("@x:b.example", "paul@agents.fr")).await;
    assert!(matches!(misplaced, Err(Error::Invalid(_))), "an address that this server does not take");
    assert!(lab.identity().check_allowed(&email("paul@partner.fr")).await.is_err());
    hear("b.example", invited("@x:b.example", "Paul@partner.fr")).await.unwrap();
    hear("b.example", invited("@x:b.example", "paul@partner.fr")).await.unwrap();
    lab.identity().check_allowed(&email("paul@partner.fr")).await.unwrap();

    // Paul signs up here: the other server is told, and hands its invitation on by itself.
    let new = NewUser {
        localpart: Some("paul".to_owned()),
        email: Some("paul@partner.fr".to_owned()),
        published: true,
        ..NewUser::default()
    };
    let paul = lab.accounts.create_user(new).await.unwrap();
    lab.service.work().await.unwrap();
    assert!(lab.homeservers.news.lock().is_empty());
    let (to, message) = lab.homeservers.notices.lock().pop().unwrap();
    assert_eq!((to.as_str(), &message["bound"]["user"]), ("b.example", &json!(paul)));
    assert_eq!(message["bound"]["address"], "paul@partner.fr");
    // Closing the account is told as well.
    lab.accounts.deactivate(&paul, Erase::No).await.unwrap();
    lab.service.work().await.unwrap();
    assert_eq!(lab.homeservers.notices.lock().pop().unwrap().1["ended"]["user"], json!(paul));

    // An agent of the other server is found here, until that server says otherwise; nobody is told again.
    let bound = |user: &str, address: &str, at: u64| json!({ "bound": { "medium": "email", "address": address, "user": user, "at": at } });
    hear("b.example", bound("@bob:b.example", "bob@agents.fr", 5)).await.unwrap();
    assert_eq!(lab.find("bob@agents.fr").await, Some(bob()));
    for (user, address) in [("@bob:a.example", "bob@agents.fr"), ("@bob:b.example", "bob@partner.fr")] {
        assert!(hear("b.example", bound(user, address, 6)).await.is_err(), "{user} {address}");
    }
    hear("b.example", bound("@old:b.example", "bob@agents.fr", 4)).await.unwrap();
    assert_eq!(lab.find("bob@agents.fr").await, Some(bob()), "what is older does not win");
    // An invitation of an agent of the other server waits there as well.
    lab.service.store_invite(invitation("carol@agents.fr")).await.unwrap();
    lab.service.work().await.unwrap();
    let (to, message) = lab.homeservers.notices.lock().pop().unwrap();
    assert_eq!((to, &message["invited"]["sender"]), (b.to_string(), &json!("@alice:a.example")));
    let ended = json!({ "ended": { "medium": "email", "address": "bob@agents.fr", "user": BOB, "at": 9 } });
    hear("b.example", ended).await.unwrap();
    assert_eq!(lab.find("bob@agents.fr").await, None);
}

#[tokio::test]
async fn only_servers_whose_users_need_no_invitation_let_somebody_in_by_one() {
    let lab = partners(memory()).await;
    lab.identity().map().put(&"c.fr".parse().unwrap(), &target("c.example", true)).await.unwrap();
    // With a server of one's own, one has a token of this service, and no more.
    let own = lab.service.store_invite(by("@mallory:evil.example", "mallory@home.fr")).await;
    assert!(matches!(own, Err(Error::MayNotInvite)), "{own:?}");
    assert!(lab.mailer.mails.lock().is_empty());
    // Those who were invited invite into their rooms, and not into the network.
    lab.service.store_invite(by("@partner:a.example", "mallory@home.fr")).await.unwrap();
    lab.hear("c.example", invited("@partner:c.example", "mallory@home.fr")).await.unwrap();
    let refused = lab.identity().check_allowed(&email("mallory@home.fr")).await;
    assert!(matches!(refused, Err(Error::InvitationMissing { .. })), "{refused:?}");
    let info = lab.service.internal_info(&email("mallory@home.fr")).await.unwrap().unwrap();
    assert!(!info.invited);
    // Nor do they take the places of those who do.
    for n in 0..150 {
        let mut many = invited("@partner:c.example", "paul@home.fr");
        many["invited"]["token"] = json!(format!("tok{n}"));
        lab.hear("c.example", many).await.unwrap();
    }
    lab.hear("b.example", invited("@agent:b.example", "paul@home.fr")).await.unwrap();
    lab.identity().check_allowed(&email("paul@home.fr")).await.unwrap();
    lab.service.store_invite(by("@agent:b.example", "anne@home.fr")).await.unwrap();
    lab.identity().check_allowed(&email("anne@home.fr")).await.unwrap();
}

#[tokio::test]
async fn a_user_id_is_no_link_in_a_mail_and_a_room_id_has_its_length() {
    let lab = Lab::new().await;
    lab.service.store_invite(by("@go.evil.tld/login\n\nCall:a.example", "x@b.fr")).await.unwrap();
    let mail = lab.mailer.mails.lock().last().unwrap().clone();
    assert!(!mail.text.contains("evil.tld") && !mail.html.contains("evil.tld"), "{}", mail.text);
    assert!(!mail.text.contains("\n\nCall"), "{}", mail.text);
    let long = RoomId::parse(format!("!{}:a.example", "r".repeat(255))).unwrap();
    let too_long = lab.service.store_invite(Invitation { room: long.clone(), ..invitation("y@b.fr") }).await;
    assert!(matches!(too_long, Err(Error::Invalid(_))), "{too_long:?}");
    let lab = partners(memory()).await;
    let mut said = invited("@agent:b.example", "paul@home.fr");
    said["invited"]["room_id"] = json!(long);
    assert!(matches!(lab.hear("b.example", said).await, Err(Error::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn an_invitation_is_told_once_its_mail_is_out() {
    let lab = partners(memory()).await;
    lab.mailer.slow.store(true, Relaxed);
    for (broken, told) in [(true, 0), (false, 1)] {
        lab.mailer.broken.store(broken, Relaxed);
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            lab.service.work().await.unwrap();
            assert_eq!(lab.told(), [], "not before the mail is out");
        };
        let (stored, ()) = tokio::join!(lab.service.store_invite(invitation("carol@agents.fr")), meanwhile);
        assert_eq!(stored.is_err(), broken);
        lab.service.work().await.unwrap();
        assert_eq!(lab.told().len(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn news_that_wait_are_told_only_if_they_are_still_so() {
    let lab = partners(memory()).await;
    let (paul, address) = (user_id!("@paul:a.example"), email("paul@partner.fr"));
    let (hour, at) = (Duration::from_hours(1), |told: &(String, String, Value)| told.2["at"].clone());
    // Bound and taken back while the other server is away: it hears of the end alone.
    *lab.homeservers.answer.lock() = Some(HomeserverError::Unreachable);
    lab.service.bind_unproved(&address, paul).await.unwrap();
    lab.later(Duration::from_secs(1)).await;
    assert!(lab.service.unbind(&address, paul).await.unwrap());
    lab.later(Duration::from_secs(1)).await;
    *lab.homeservers.answer.lock() = None;
    lab.told();
    lab.later(hour).await;
    assert_eq!(lab.told().iter().map(|told| told.1.as_str()).collect::<Vec<_>>(), ["ended"]);
    // Taken back and bound again: of the new binding alone.
    lab.service.bind_unproved(&address, paul).await.unwrap();
    lab.service.work().await.unwrap();
    let first = lab.told();
    *lab.homeservers.answer.lock() = Some(HomeserverError::Unreachable);
    tokio::time::advance(Duration::from_secs(1)).await;
    lab.service.unbind(&address, paul).await.unwrap();
    lab.later(Duration::from_secs(1)).await;
    lab.service.bind_unproved(&address, paul).await.unwrap();
    lab.later(Duration::from_secs(1)).await;
    *lab.homeservers.answer.lock() = None;
    lab.told();
    lab.later(hour).await;
    let told = lab.told();
    assert_eq!(told.iter().map(|told| told.1.as_str()).collect::<Vec<_>>(), ["bound"]);
    assert!(at(&told[0]).as_u64() > at(&first[0]).as_u64(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn invitations_wait_on_when_a_binding_was_taken_back_at_once() {
    let lab = partners(memory()).await;
    lab.service.store_invite(by("@agent:b.example", "paul@partner.fr")).await.unwrap();
    let (paul, address) = (user_id!("@paul:a.example"), email("paul@partner.fr"));
    lab.service.bind_unproved(&address, paul).await.unwrap();
    lab.service.unbind(&address, paul).await.unwrap();
    lab.service.work().await.unwrap();
    assert!(lab.homeservers.news.lock().is_empty());
    assert!(lab.identity().is_invited(&address).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn invitations_on_their_way_follow_the_address_and_not_who_had_it() {
    let lab = Lab::new().await;
    let (address, carol, dave) =
        (email("bob@b.fr"), user_id!("@carol:b.example"), user_id!("@dave:c.example"));
    for _ in 0..2 {
        lab.service.store_invite(invitation("bob@b.fr")).await.unwrap();
    }
    // Of whose address it was, by message: who is told, and of how many.
    let told = async |wait: Duration| {
        lab.homeservers.news.lock().clear();
        lab.later(wait).await;
        let news = std::mem::take(&mut *lab.homeservers.news.lock());
        let one = |news: Value| (news["mxid"].clone(), news["invites"].as_array().unwrap().len());
        news.into_iter().map(one).collect::<Vec<_>>()
    };
    let each = |user: &UserId| [(json!(user), 1), (json!(user), 1)];
    let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
    *lab.homeservers.answer.lock() = Some(HomeserverError::Unreachable);
    lab.service.bind_unproved(&address, &bob()).await.unwrap();
    assert_eq!(told(second).await, each(&bob()), "one whose server is away holds up no other");
    // Somebody else has it now.
    lab.service.bind_unproved(&address, carol).await.unwrap();
    assert_eq!(told(hour).await, each(carol));
    // Nobody has it: they wait for the next.
    assert!(lab.service.unbind(&address, carol).await.unwrap());
    *lab.homeservers.answer.lock() = None;
    assert_eq!(told(hour).await, []);
    assert!(lab.identity().is_invited(&address).await.unwrap());
    lab.service.bind_unproved(&address, dave).await.unwrap();
    assert_eq!(told(second).await, each(dave));
    assert_eq!(told(hour).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_new_to_the_network_is_told_of_all_addresses() {
    let store = memory();
    let lab = Lab::with(agents(), store.clone(), 0).await;
    lab.service.bind_unproved(&email("bob@b.fr"), &bob()).await.unwrap();
    let map = lab.identity().map();
    map.put(&"*".parse().unwrap(), &target(SERVER, false)).await.unwrap();
    for n in 0..45 {
        let user: OwnedUserId = UserId::parse(format!("@u{n}:a.example")).unwrap();
        lab.service.bind_unproved(&email(&format!("u{n}@home.fr")), &user).await.unwrap();
    }
    lab.service.work().await.unwrap();
    assert_eq!(lab.told(), []);

    map.put(&"agents.fr".parse().unwrap(), &target("b.example", false)).await.unwrap();
    *lab.homeservers.answer.lock() = Some(HomeserverError::Unreachable);
    lab.service.work().await.unwrap();
    assert!(!lab.told().is_empty());
    // For weeks it is not there yet.
    for _ in 0..60 {
        lab.later(Duration::from_hours(6)).await;
    }
    lab.told();
    *lab.homeservers.answer.lock() = None;
    let mut heard = BTreeSet::new();
    for hours in [6, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        lab.later(Duration::from_hours(hours)).await;
        for (to, what, said) in lab.told() {
            assert_eq!((to.as_str(), what.as_str()), ("b.example", "bound"));
            assert!(heard.insert(said["address"].as_str().unwrap().to_owned()), "twice: {said}");
        }
    }
    assert_eq!(heard.len(), 45, "of its own users alone");
    assert!(!heard.contains("bob@b.fr"), "{BOB} is another's");
    // Once, over restarts.
    let again = Lab::with(agents(), store, 3_600_000).await;
    again.service.work().await.unwrap();
    assert_eq!(again.told(), []);
    again.identity().map().put(&"c.fr".parse().unwrap(), &target("c.example", false)).await.unwrap();
    again.service.work().await.unwrap();
    assert!(again.told().iter().all(|told| told.0 == "c.example"));
}
