//! `chappe admin network`: a list made and signed as a file, followed by a running server.

use http::StatusCode;
use serde_json::Value;

use crate::lab::Lab;

#[tokio::test]
async fn a_list_is_made_signed_compared_and_applied() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (key, next_key, file) = (at("root.key"), at("next.key"), at("list.json"));
    let chappe = async |arguments: &[&str]| {
        let all = ["--json", "network"].iter().chain(arguments);
        let all = std::iter::once("admin").chain(all.copied());
        crate::lab::chappe(all.map(str::to_owned).collect()).await
    };
    let made =
        async |file: &str| -> Value { serde_json::from_str(&chappe(&["key", file]).await.unwrap()).unwrap() };
    let (root, next) = (made(&key).await, made(&next_key).await);
    assert!(chappe(&["key", &key]).await.is_err(), "a key is never overwritten");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let more = format!(
        "[federation.network]\nname = \"example.gouv.fr\"\ntrust_roots = {{ \"{}\" = \"{}\" }}",
        text(&root["key_id"]),
        text(&root["public_key"])
    );
    let lab = Lab::start(&more).await;
    let shown = lab.admin(&["network", "show"]).await.unwrap();
    assert!(shown.contains("closed"), "{shown}");
    assert!(lab.admin(&["network", "fetch"]).await.unwrap_err().contains("no publisher"));

    chappe(&["create", &file, "--name", "example.gouv.fr"]).await.unwrap();
    assert!(
        chappe(&["create", &file, "--name", "example.gouv.fr"]).await.is_err(),
        "a file is never overwritten"
    );
    chappe(&["add", &file, "agent.example.gouv.fr", "--addresses", "dinum.gouv.fr"]).await.unwrap();
    let pinned = format!("ed25519:1={}", text(&next["public_key"]));
    chappe(&["add", &file, "b.example.gouv.fr", "--addresses", "*", "--requires-invite", "--key", &pinned])
        .await
        .unwrap();
    for wrong in [&["add", &file, "c.example", "--addresses", "a@b@c"][..], &["remove", &file, "c.example"]] {
        assert!(chappe(wrong).await.is_err(), "{wrong:?}");
    }
    let timed: &[&str] =
        &["add", &file, "b.example.gouv.fr", "--valid-from", "2026-01-01", "--valid-until", "2999-01-01"];
    chappe(timed).await.unwrap();
    for wrong in ["2025-12-31", "tomorrow"] {
        assert!(
            chappe(&["add", &file, "b.example.gouv.fr", "--valid-until", wrong]).await.is_err(),
            "{wrong}"
        );
    }
    let unsigned = lab.admin(&["network", "apply", &file]).await.unwrap_err();
    assert!(unsigned.contains("no trust root has signed it"), "{unsigned}");
    let differs = lab.admin(&["network", "diff", &file]).await.unwrap();
    assert!(
        differs.contains("+ server b.example.gouv.fr")
            && differs.contains("from 2026-01-01 00:00 UTC (1767225600000), until 2999-01-01 00:00 UTC")
            && differs.contains("+ addresses dinum.gouv.fr"),
        "{differs}"
    );

    chappe(&["sign", &file, "--key", &next_key]).await.unwrap();
    assert!(lab.admin(&["network", "apply", &file]).await.is_err(), "signed by a stranger");
    chappe(&["sign", &file, "--key", &key, "--also"]).await.unwrap();
    let applied = lab.admin(&["network", "apply", &file]).await.unwrap();
    assert!(applied.contains("number 1"), "{applied}");
    let shown = lab.admin(&["network", "show"]).await.unwrap();
    assert!(shown.contains("open") && shown.contains("b.example.gouv.fr on invitation"), "{shown}");
    assert_eq!(lab.admin(&["network", "diff", &file]).await.unwrap().trim(), "");
    let check = lab.admin(&["domains", "map", "check", "jean@dinum.gouv.fr"]).await.unwrap();
    assert!(check.contains("belongs to agent.example.gouv.fr"), "{check}");
    let path = "/_matrix/federation/unstable/chappe/network_list";
    assert_eq!(lab.http().get(path, None).await.0, StatusCode::OK);
    assert!(lab.admin(&["servers", "list"]).await.unwrap().contains("network's list"));

    chappe(&["remove", &file, "b.example.gouv.fr"]).await.unwrap();
    chappe(&["sign", &file, "--key", &key, "--days", "1"]).await.unwrap();
    let differs = lab.admin(&["network", "diff", &file]).await.unwrap();
    assert!(differs.contains("- server b.example.gouv.fr") && !differs.contains("+ "), "{differs}");
    assert!(lab.admin(&["network", "apply", &file]).await.unwrap().contains("number 2"));
    let again = lab.admin(&["network", "apply", &file]).await.unwrap();
    assert!(again.contains("already"), "{again}");
    lab.stop().await;
}
