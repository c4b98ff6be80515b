//! The admin API, as web consoles and bots call it.

mod access;
mod media;
mod notices;
mod purge;
mod rooms;
mod users;

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::home::{Home, User};
use crate::host::PATIENCE;

/// A path below `/_synapse/admin`.
fn at(path: &str) -> String {
    format!("/_synapse/admin{path}")
}

/// Asks until a job has come to its end; gives its last status.
async fn ended(admin: &User<'_>, path: &str) -> Value {
    let ending = async {
        loop {
            let said = admin.get(path).await.ok();
            match said["status"].as_str().unwrap() {
                "complete" | "failed" => return said,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, ending).await.expect("the job ends")
}
