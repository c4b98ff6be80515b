//! The identity service of an assembled server: alone, in a network of servers, and under attack.

mod endpoints;
mod hostile;
mod network;
mod story;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::lab::Http;

const V2: &str = "/_matrix/identity/v2";

/// An access token of the identity service for somebody with one of the homeserver.
async fn member(http: &Http, user: &str, token: &str) -> String {
    let path = format!("/_matrix/client/v3/user/{user}/openid/request_token");
    let (status, openid) = http.call(Method::POST, &path, Some(token), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{openid}");
    let (status, given) = http.post(&format!("{V2}/account/register"), openid).await;
    assert_eq!(status, StatusCode::OK, "{given}");
    given["token"].as_str().unwrap().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
