//! The access rules, row by row of the checklist in docs/tchap.md.

use ruma::{
    CanonicalJsonObject, UserId, owned_server_name, owned_user_id, room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json};

use super::{Access, Refusal};
use crate::{
    Pdu,
    auth::StateKey,
    json as strict,
    laws::Room,
    policy::{Bypass, Candidate, Door, Question},
};

const AGENT: &str = "@agent:a.fr";
const COLLEAGUE: &str = "@colleague:b.fr";
const THIRD: &str = "@third:b.fr";
const EXTERNAL: &str = "@partner:e.fr";
const RULES: &str = super::RULES;

fn access() -> Access {
    Access {
        externals: vec![owned_server_name!("e.fr")],
        bypass_users: vec![owned_user_id!("@bot:b.fr")],
        ..Access::default()
    }
}

/// A room of an agent, on one line of history.
struct Lab {
    access: Access,
    room: Room,
    listed: bool,
}

impl Lab {
    /// A room with this access rules event, or none.
    fn new(rules: &Value) -> Self {
        Self::of(&RoomVersionRules::V11, rules)
    }

    fn of(version: &'static RoomVersionRules, rules: &Value) -> Self {
        let mut lab = Self { access: access(), room: Room::new(version, AGENT), listed: false };
        lab.set("m.room.join_rules", "", &json!({ "join_rule": "invite" }));
        if !rules.is_null() {
            lab.set(RULES, "", rules);
        }
        lab
    }

    fn rule(rule: &str) -> Self {
        Self::new(&json!({ "rule": rule }))
    }

    fn set(&mut self, kind: &str, key: &str, content: &Value) -> Pdu {
        self.room.send(AGENT, kind, Some(key), content)
    }

    fn member(&mut self, sender: &str, user: &str, membership: &str) {
        self.room.member(sender, user, membership);
    }

    fn judge(&self, question: (Door, Bypass), candidate: Candidate<'_>) -> Result<(), Refusal> {
        let state = |key: &StateKey| self.room.state_event(&key.0, &key.1);
        let kinds = ["m.room.member", "m.room.third_party_invite"];
        let keys = self.room.state.keys().filter(|(kind, _)| kinds.contains(&kind.to_string().as_str()));
        let parties: Vec<Pdu> = keys.filter_map(state).collect();
        let needed = self.access.needs_parties(&candidate, &state);
        let keys = self.access.state_needed(&candidate);
        // Nothing may be read that was not asked for.
        let state = |key: &StateKey| {
            assert!(keys.contains(key), "{key:?} is read for {candidate:?}");
            self.room.state_event(&key.0, &key.1)
        };
        self.access.allowed(&Question {
            candidate,
            state: &state,
            parties: needed.then_some(&parties),
            listed: self.listed,
            door: question.0,
            bypass: question.1,
        })
    }

    fn at(
        &self,
        door: Door,
        sender: &str,
        kind: &str,
        key: Option<&str>,
        content: &Value,
    ) -> Result<(), Refusal> {
        let content: CanonicalJsonObject = strict::object(content.to_string().as_bytes()).unwrap();
        let sender = <&UserId>::try_from(sender).unwrap();
        let candidate =
            Candidate { kind: &kind.into(), state_key: key, sender, content: &content, redacts: None };
        self.judge((door, Bypass::None), candidate)
    }

    /// Asks about a state event of the agent.
    fn ask(&self, kind: &str, content: &Value) -> Result<(), Refusal> {
        self.at(Door::Local, AGENT, kind, Some(""), content)
    }

    fn ask_member(&self, sender: &str, user: &str, membership: &str) -> Result<(), Refusal> {
        let said = json!({ "membership": membership });
        let here = self.at(Door::Local, sender, "m.room.member", Some(user), &said);
        if self.access.domains == super::DomainRules::default() {
            for door in [Door::Offer, Door::Received, Door::Create] {
                assert_eq!(self.at(door, sender, "m.room.member", Some(user), &said), here, "{door:?}");
            }
        }
        here
    }

    fn ask_rules(&self, content: &Value) -> Result<(), Refusal> {
        self.ask(RULES, content)
    }

    fn ask_token(&self, token: &str, content: &Value) -> Result<(), Refusal> {
        self.at(Door::Local, AGENT, "m.room.third_party_invite", Some(token), content)
    }
}

#[test]
fn row_33_rules_are_valid_or_refused() {
    let lab = Lab::new(&Value::Null);
    for wrong in [
        json!({}),
        json!({ "rule": "foo" }),
        json!({ "rule": 1 }),
        json!({ "rule": null }),
        json!({ "rule": "restricted", "visibility": "secret" }),
        json!({ "rule": "restricted", "force_unencrypted_at_creation": "yes" }),
    ] {
        assert_eq!(lab.ask_rules(&wrong), Err(Refusal::Invalid), "{wrong}");
    }
}

/// As clients write it that write every field.
fn with_nulls(rule: &str) -> Value {
    json!({ "rule": rule, "visibility": null, "force_unencrypted_at_creation": null })
}

#[test]
fn rows_33_35_44_what_is_null_is_not_said() {
    assert_eq!(Lab::new(&Value::Null).ask_rules(&with_nulls("restricted")), Ok(()));
    for before in [
        with_nulls("restricted"),
        json!({ "rule": "restricted" }),
        json!({ "rule": "restricted", "visibility": "private", "force_unencrypted_at_creation": false }),
    ] {
        let lab = Lab::new(&before);
        for after in [with_nulls("unrestricted"), json!({ "rule": "unrestricted" })] {
            for door in [Door::Local, Door::Received] {
                assert_eq!(lab.at(door, AGENT, RULES, Some(""), &after), Ok(()), "{before} {after} {door:?}");
            }
        }
    }
    for said in [
        json!({ "rule": "restricted", "visibility": "public" }),
        json!({ "rule": "restricted", "force_unencrypted_at_creation": true }),
    ] {
        assert_eq!(Lab::new(&said).ask_rules(&with_nulls("restricted")), Err(Refusal::Fixed), "{said}");
    }
    // What a room says in this way counts.
    let invite = |rule| Lab::new(&with_nulls(rule)).ask_member(AGENT, EXTERNAL, "invite");
    assert_eq!((invite("unrestricted"), invite("direct")), (Ok(()), Ok(())));
    assert_eq!(invite("restricted"), Err(Refusal::Closed));
}

#[test]
fn row_34_externals_create_no_rooms() {
    let lab = Lab::new(&Value::Null);
    let create = |sender| lab.at(Door::Create, sender, "m.room.create", Some(""), &json!({}));
    assert_eq!(create(EXTERNAL), Err(Refusal::Creates));
    assert_eq!(create(AGENT), Ok(()));
}

#[test]
fn row_35_what_is_said_at_creation_stays() {
    let public = Lab::new(&json!({ "rule": "restricted", "visibility": "public" }));
    assert_eq!(public.ask_rules(&json!({ "rule": "restricted" })), Err(Refusal::Fixed));
    assert_eq!(public.ask_rules(&json!({ "rule": "restricted", "visibility": "public" })), Ok(()));
    let plain = Lab::new(&json!({ "rule": "restricted", "force_unencrypted_at_creation": true }));
    assert_eq!(plain.ask_rules(&json!({ "rule": "unrestricted" })), Err(Refusal::Fixed));
    let kept = json!({ "rule": "unrestricted", "force_unencrypted_at_creation": true });
    assert_eq!(plain.ask_rules(&kept), Ok(()));
    // First rules: of our own users the defaults, of others anything.
    let bare = Lab::new(&Value::Null);
    let first = json!({ "rule": "restricted", "visibility": "public" });
    assert_eq!(bare.ask_rules(&first), Err(Refusal::Fixed));
    for door in [Door::Create, Door::Received] {
        assert_eq!(bare.at(door, AGENT, RULES, Some(""), &first), Ok(()));
    }
    assert_eq!(bare.ask_rules(&json!({ "rule": "restricted", "visibility": "private" })), Ok(()));
}

#[test]
fn rows_38_39_rooms_that_stay_unencrypted() {
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    for (rules, answer) in [
        (json!({ "rule": "restricted", "visibility": "public" }), Err(Refusal::Encryption)),
        (json!({ "rule": "restricted", "force_unencrypted_at_creation": true }), Err(Refusal::Encryption)),
        (json!({ "rule": "restricted" }), Ok(())),
        (Value::Null, Ok(())),
    ] {
        assert_eq!(Lab::new(&rules).ask("m.room.encryption", &algorithm), answer, "{rules}");
    }
}

#[test]
fn rows_44_45_46_how_rules_follow_each_other() {
    let (restricted, unrestricted, direct) = ("restricted", "unrestricted", "direct");
    for (from, to, answer) in [
        (restricted, unrestricted, Ok(())),
        (unrestricted, restricted, Err(Refusal::Change)),
        (restricted, direct, Err(Refusal::Change)),
        (unrestricted, direct, Err(Refusal::Change)),
        (direct, restricted, Err(Refusal::Change)),
        (direct, unrestricted, Err(Refusal::Change)),
        (restricted, restricted, Ok(())),
        (unrestricted, unrestricted, Ok(())),
        (direct, direct, Ok(())),
    ] {
        let lab = Lab::rule(from);
        assert_eq!(lab.ask_rules(&json!({ "rule": to })), answer, "{from} → {to}");
        let received = lab.at(Door::Received, COLLEAGUE, RULES, Some(""), &json!({ "rule": to }));
        assert_eq!(received, answer, "{from} → {to}");
    }
    for to in [restricted, unrestricted, direct] {
        assert_eq!(Lab::new(&Value::Null).ask_rules(&json!({ "rule": to })), Ok(()), "{to}");
    }
    // A direct chat is made of two, and closed.
    let mut crowd = Lab::new(&Value::Null);
    crowd.member(AGENT, COLLEAGUE, "invite");
    assert_eq!(crowd.ask_rules(&json!({ "rule": direct })), Ok(()));
    crowd.member(AGENT, THIRD, "leave");
    assert_eq!(crowd.ask_rules(&json!({ "rule": direct })), Err(Refusal::Third));
    let mut open = Lab::new(&Value::Null);
    open.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
    assert_eq!(open.ask_rules(&json!({ "rule": direct })), Err(Refusal::OpenDirect));
}

#[test]
fn row_47_what_cannot_be_opened_to_externals() {
    let opens = json!({ "rule": "unrestricted" });
    let public = Lab::new(&json!({ "rule": "restricted", "visibility": "public" }));
    let said = json!({ "rule": "unrestricted", "visibility": "public" });
    assert_eq!(public.ask_rules(&said), Err(Refusal::PublicToExternals));
    let mut listed = Lab::rule("restricted");
    listed.listed = true;
    assert_eq!(listed.ask_rules(&opens), Err(Refusal::PublicToExternals));
    // What the others list is theirs to know.
    assert_eq!(listed.at(Door::Received, COLLEAGUE, RULES, Some(""), &opens), Ok(()));
    for (levels, answer) in [
        (json!({ "users_default": 100 }), Err(Refusal::PowerForAll)),
        (json!({ "users_default": 1 }), Err(Refusal::PowerForAll)),
        (json!({ "users_default": 0, "users": { AGENT: 100, EXTERNAL: 50 } }), Err(Refusal::ExternalPower)),
        (json!({ "users": { AGENT: 100, EXTERNAL: 0 } }), Ok(())),
    ] {
        let mut lab = Lab::rule("restricted");
        lab.set("m.room.power_levels", "", &levels);
        assert_eq!(lab.ask_rules(&opens), answer, "{levels}");
    }
    // From version 12 on creators have power without any levels.
    let mut lab = Lab::of(&RoomVersionRules::V12, &json!({ "rule": "restricted" }));
    assert_eq!(lab.ask_rules(&opens), Ok(()));
    lab.set("m.room.create", "", &json!({ "additional_creators": [COLLEAGUE, EXTERNAL] }));
    assert_eq!(lab.ask_rules(&opens), Err(Refusal::ExternalPower));
}

#[test]
fn rows_48_49_no_external_enters_a_restricted_room() {
    for rules in [json!({ "rule": "restricted" }), Value::Null, json!({ "rule": "nonsense" })] {
        let mut lab = Lab::new(&rules);
        assert_eq!(lab.ask_member(AGENT, EXTERNAL, "invite"), Err(Refusal::Closed), "{rules}");
        assert_eq!(lab.ask_member(AGENT, "@partner:E.FR", "invite"), Err(Refusal::Closed), "the same server");
        assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "knock"), Err(Refusal::Closed));
        for membership in ["leave", "ban"] {
            assert_eq!(lab.ask_member(AGENT, EXTERNAL, membership), Ok(()), "{membership}");
        }
        lab.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
        assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Err(Refusal::Closed));
        lab.member(COLLEAGUE, EXTERNAL, "invite");
        assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Err(Refusal::Closed));
        assert_eq!(lab.ask_member(COLLEAGUE, COLLEAGUE, "join"), Ok(()));
    }
}

#[test]
fn rows_50_51_externals_enter_an_open_room_by_invitation() {
    let mut lab = Lab::rule("unrestricted");
    lab.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
    for before in ["leave", "knock", "ban"] {
        lab.member(EXTERNAL, EXTERNAL, before);
        assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Err(Refusal::Uninvited), "{before}");
        assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "knock"), Err(Refusal::Uninvited));
    }
    assert_eq!(lab.ask_member(AGENT, EXTERNAL, "invite"), Ok(()));
    lab.member(AGENT, EXTERNAL, "invite");
    assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Ok(()));
    lab.member(EXTERNAL, EXTERNAL, "join");
    assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Ok(()), "a change of name");
    assert_eq!(lab.ask_member(COLLEAGUE, COLLEAGUE, "join"), Ok(()));
}

#[test]
fn row_52_externals_have_no_power_in_an_open_room() {
    for (levels, answer) in [
        (json!({ "users": { AGENT: 100, EXTERNAL: 50 } }), Err(Refusal::ExternalPower)),
        (json!({ "users": { EXTERNAL: -1 } }), Err(Refusal::ExternalPower)),
        (json!({ "users": { EXTERNAL: "100" } }), Err(Refusal::ExternalPower)),
        (json!({ "users": { EXTERNAL: 0, COLLEAGUE: 50 } }), Ok(())),
        (json!({ "users_default": 50 }), Err(Refusal::PowerForAll)),
        (json!({ "users_default": 0 }), Ok(())),
    ] {
        assert_eq!(Lab::rule("unrestricted").ask("m.room.power_levels", &levels), answer, "{levels}");
        for rule in ["restricted", "direct"] {
            assert_eq!(Lab::rule(rule).ask("m.room.power_levels", &levels), Ok(()), "{rule}: {levels}");
        }
    }
}

#[test]
fn row_53_a_direct_chat_has_no_third_person() {
    let mut lab = Lab::rule("direct");
    assert_eq!(lab.ask_member(AGENT, EXTERNAL, "invite"), Ok(()));
    lab.member(AGENT, EXTERNAL, "invite");
    assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Ok(()));
    assert_eq!(lab.ask_member(AGENT, THIRD, "invite"), Err(Refusal::Third));
    lab.member(EXTERNAL, EXTERNAL, "leave");
    assert_eq!(
        lab.ask_member(AGENT, THIRD, "invite"),
        Err(Refusal::Third),
        "the one who left is still the one"
    );
    assert_eq!(lab.ask_member(AGENT, EXTERNAL, "invite"), Ok(()));
    assert_eq!(lab.ask_member(AGENT, AGENT, "leave"), Ok(()));
    // A server that keeps no rules has invited somebody all the same.
    lab.member(AGENT, THIRD, "invite");
    assert_eq!(lab.ask_member(THIRD, THIRD, "join"), Err(Refusal::Third));
    for (who, membership) in [(AGENT, "join"), (AGENT, "leave"), (THIRD, "leave")] {
        assert_eq!(lab.ask_member(who, who, membership), Ok(()), "{who}: {membership}");
    }
}

#[test]
fn row_54_a_direct_chat_has_one_invited_address() {
    let asked = json!({ "display_name": "p…@x.fr" });
    let mut lab = Lab::rule("direct");
    assert_eq!(lab.ask_token("one", &asked), Ok(()));
    lab.set("m.room.third_party_invite", "one", &asked);
    assert_eq!(lab.ask_token("two", &asked), Err(Refusal::Third));
    assert_eq!(lab.ask_member(AGENT, EXTERNAL, "invite"), Err(Refusal::Third));
    let redeemed = |token: &str| {
        let said = json!({ "membership": "invite", "third_party_invite": { "signed": { "token": token } } });
        lab.at(Door::Local, AGENT, "m.room.member", Some(EXTERNAL), &said)
    };
    assert_eq!((redeemed("one"), redeemed("two")), (Ok(()), Err(Refusal::Third)));
    assert_eq!(lab.ask_token("one", &json!({})), Ok(()), "taken back");
    lab.set("m.room.third_party_invite", "one", &json!({}));
    assert_eq!(lab.ask_token("two", &asked), Ok(()));
    lab.member(AGENT, EXTERNAL, "invite");
    assert_eq!(lab.ask_token("two", &asked), Err(Refusal::Third), "two are there");
}

#[test]
fn row_55_a_direct_chat_is_plain_and_closed() {
    for (kind, content, answer) in [
        ("m.room.name", json!({ "name": "x" }), Err(Refusal::Plain)),
        ("m.room.topic", json!({ "topic": "x" }), Err(Refusal::Plain)),
        ("m.room.avatar", json!({ "url": "mxc://a/b" }), Err(Refusal::Plain)),
        ("m.room.join_rules", json!({ "join_rule": "public" }), Err(Refusal::OpenDirect)),
        ("m.room.join_rules", json!({ "join_rule": "invite" }), Ok(())),
        ("m.room.pinned_events", json!({ "pinned": [] }), Ok(())),
    ] {
        assert_eq!(Lab::rule("direct").ask(kind, &content), answer, "{kind}");
        for rule in ["restricted", "unrestricted"] {
            assert_eq!(Lab::rule(rule).ask(kind, &content), Ok(()), "{rule}: {kind}");
        }
    }
}

#[test]
fn row_55_a_direct_chat_keeps_what_it_is_made_with() {
    let described = [
        ("m.room.name", json!({ "name": "x" })),
        ("m.room.topic", json!({ "topic": "x" })),
        ("m.room.avatar", json!({ "url": "mxc://a/b" })),
    ];
    for (kind, content) in &described {
        let mut lab = Lab::rule("direct");
        let ask = |lab: &Lab, door| lab.at(door, AGENT, kind, Some(""), content);
        for door in [Door::Create, Door::Received] {
            assert_eq!(ask(&lab, door), Ok(()), "{kind} {door:?}");
        }
        for door in [Door::Local, Door::Offer] {
            assert_eq!(ask(&lab, door), Err(Refusal::Plain), "{kind} {door:?}");
        }
        // From then on nobody says anything else.
        lab.member(AGENT, COLLEAGUE, "invite");
        assert_eq!(ask(&lab, Door::Received), Err(Refusal::Plain), "{kind}");
        let mut lab = Lab::rule("direct");
        lab.set("m.room.third_party_invite", "one", &json!({ "display_name": "p…@x.fr" }));
        assert_eq!(ask(&lab, Door::Received), Err(Refusal::Plain), "{kind}");
    }
    let open = json!({ "join_rule": "public" });
    let opened = Lab::rule("direct").at(Door::Create, AGENT, "m.room.join_rules", Some(""), &open);
    assert_eq!(opened, Err(Refusal::OpenDirect));
}

#[test]
fn row_59_a_public_room_stays_open() {
    let mut lab = Lab::new(&json!({ "rule": "restricted", "visibility": "public" }));
    assert_eq!(
        lab.ask("m.room.join_rules", &json!({ "join_rule": "invite" })),
        Ok(()),
        "it was not open yet"
    );
    lab.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
    assert_eq!(lab.ask("m.room.join_rules", &json!({ "join_rule": "invite" })), Err(Refusal::StaysOpen));
    assert_eq!(lab.ask("m.room.join_rules", &json!({ "join_rule": "public" })), Ok(()));
    let mut private = Lab::rule("restricted");
    private.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
    assert_eq!(private.ask("m.room.join_rules", &json!({ "join_rule": "invite" })), Ok(()));
}

#[test]
fn row_60_some_are_exempt() {
    let mut lab = Lab::rule("restricted");
    let content = strict::object(br#"{"membership":"invite"}"#).unwrap();
    let sender = <&UserId>::try_from(AGENT).unwrap();
    let kind = "m.room.member".into();
    let candidate =
        Candidate { kind: &kind, state_key: Some(EXTERNAL), sender, content: &content, redacts: None };
    assert_eq!(lab.judge((Door::Local, Bypass::ServerAdmin), candidate), Ok(()));
    assert_eq!(lab.judge((Door::Local, Bypass::None), candidate), Err(Refusal::Closed));
    lab.access.bypass_users.push(owned_user_id!("@vip:e.fr"));
    for (sender, user, answer) in [
        ("@bot:b.fr", EXTERNAL, Ok(())),
        (AGENT, "@vip:e.fr", Ok(())),
        (AGENT, EXTERNAL, Err(Refusal::Closed)),
    ] {
        assert_eq!(lab.ask_member(sender, user, "invite"), answer, "{sender} {user}");
    }
    lab.member("@bot:b.fr", EXTERNAL, "invite");
    assert_eq!(lab.ask_member(EXTERNAL, EXTERNAL, "join"), Ok(()), "invited by one who is exempt");
}

#[test]
fn row_61_rules_are_not_emptied_by_redaction() {
    let public = json!({ "rule": "restricted", "visibility": "public" });
    let mut lab = Lab::new(&public);
    let (rules, retention) =
        (lab.set(RULES, "", &public), lab.set("m.room.retention", "", &json!({ "max_lifetime": 1 })));
    let name = lab.set("m.room.name", "", &json!({ "name": "x" }));
    let content = CanonicalJsonObject::new();
    let sender = <&UserId>::try_from(COLLEAGUE).unwrap();
    for (target, answer) in
        [(&rules, Err(Refusal::Redaction)), (&retention, Err(Refusal::Redaction)), (&name, Ok(()))]
    {
        let kind = "m.room.redaction".into();
        let redacts = Some(target.event_id());
        let candidate = Candidate { kind: &kind, state_key: None, sender, content: &content, redacts };
        for door in [Door::Local, Door::Received] {
            assert_eq!(lab.judge((door, Bypass::None), candidate), answer);
        }
    }
}

#[test]
fn row_66_domain_rules() {
    let (own, other) = (owned_server_name!("a.fr"), owned_server_name!("b.fr"));
    let mut lab = Lab::rule("unrestricted");
    lab.access.domains = super::DomainRules {
        domain_mapping: [(own.clone(), vec![own, other])].into(),
        can_invite_if_not_in_domain_mapping: false,
        ..super::DomainRules::default()
    };
    for (sender, user, answer) in [
        (AGENT, "@x:a.fr", Ok(())),
        (AGENT, COLLEAGUE, Ok(())),
        (AGENT, EXTERNAL, Err(Refusal::Invite)),
        (COLLEAGUE, "@x:a.fr", Err(Refusal::Invite)),
    ] {
        assert_eq!(lab.ask_member(sender, user, "invite"), answer, "{sender} {user}");
        let said = json!({ "membership": "invite" });
        assert_eq!(lab.at(Door::Offer, sender, "m.room.member", Some(user), &said), answer);
        assert_eq!(lab.at(Door::Received, sender, "m.room.member", Some(user), &said), Ok(()));
    }
    lab.access.domains.can_invite_if_not_in_domain_mapping = true;
    assert_eq!(lab.ask_member(COLLEAGUE, EXTERNAL, "invite"), Ok(()));

    lab.access.domains =
        super::DomainRules { can_only_join_rooms_with_invite: true, ..super::DomainRules::default() };
    assert_eq!(lab.ask_member(COLLEAGUE, COLLEAGUE, "join"), Err(Refusal::Join));
    lab.member(AGENT, COLLEAGUE, "invite");
    assert_eq!(lab.ask_member(COLLEAGUE, COLLEAGUE, "join"), Ok(()));

    lab.access.domains =
        super::DomainRules { can_only_invite_during_room_creation: true, ..super::DomainRules::default() };
    assert_eq!(lab.ask_member(AGENT, THIRD, "invite"), Ok(()), "nobody else is in");
    lab.member(COLLEAGUE, COLLEAGUE, "join");
    assert_eq!(lab.ask_member(AGENT, THIRD, "invite"), Err(Refusal::InviteLate));
    assert_eq!(lab.ask_token("t", &json!({ "display_name": "x" })), Err(Refusal::InviteLate));

    lab.access.domains =
        super::DomainRules { can_invite_by_third_party_id: false, ..super::DomainRules::default() };
    assert_eq!(lab.ask_token("t", &json!({ "display_name": "x" })), Err(Refusal::InviteAddress));
    assert_eq!(lab.ask_token("t", &json!({})), Ok(()), "taking back goes on");

    lab.access.domains = super::DomainRules {
        domains_prevented_from_being_invited_to_published_rooms: vec![owned_server_name!("b.fr")],
        ..super::DomainRules::default()
    };
    assert_eq!(lab.ask_member(AGENT, THIRD, "invite"), Ok(()));
    lab.listed = true;
    assert_eq!(lab.ask_member(AGENT, THIRD, "invite"), Err(Refusal::Invite));
}

#[test]
fn row_89_events_of_public_rooms_are_not_kept_for_longer() {
    let day = 24 * 60 * 60 * 1_000_i64;
    let public = json!({ "rule": "restricted", "visibility": "public" });
    for (retention, answer) in [
        (json!({ "max_lifetime": 90 * day }), Ok(())),
        (json!({ "max_lifetime": day }), Ok(())),
        (json!({ "max_lifetime": 90 * day + 1 }), Err(Refusal::Retention)),
        (json!({ "max_lifetime": 0 }), Err(Refusal::Retention)),
        (json!({ "max_lifetime": "1" }), Err(Refusal::Retention)),
        (json!({}), Err(Refusal::Retention)),
    ] {
        assert_eq!(Lab::new(&public).ask("m.room.retention", &retention), answer, "{retention}");
        assert_eq!(Lab::rule("restricted").ask("m.room.retention", &retention), Ok(()));
        let mut lab = Lab::new(&public);
        lab.access.public_retention_days = 0;
        assert_eq!(lab.ask("m.room.retention", &retention), Ok(()));
    }
}

#[test]
fn row_92_no_calls_where_everybody_may_join() {
    let mut lab = Lab::rule("restricted");
    let call = |lab: &Lab| lab.at(Door::Local, AGENT, "m.call.invite", None, &json!({ "call_id": "1" }));
    assert_eq!(call(&lab), Ok(()));
    lab.set("m.room.join_rules", "", &json!({ "join_rule": "public" }));
    assert_eq!(call(&lab), Err(Refusal::Call));
}
