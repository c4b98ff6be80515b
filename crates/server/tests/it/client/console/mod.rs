//! The admin API, as web consoles and bots call it.

mod access;
mod media;
mod notices;
mod purge;
mod rooms;
mod users;

use serde_json::Value;

use super::home::{Home, User};

/// A path below `/_synapse/admin`.
fn at(path: &str) -> String {
    format!("/_synapse/admin{path}")
}

/// Asks until a job has come to its end; gives its last status.
async fn ended(admin: &User<'_>, path: &str) -> Value {
    for _ in 0..2_000 {
        let said = admin.get(path).await.ok();
        match said["status"].as_str().unwrap() {
            "complete" | "failed" => return said,
            _ => tokio::task::yield_now().await,
        }
    }
    unreachable!("the job at {path} does not end");
}
