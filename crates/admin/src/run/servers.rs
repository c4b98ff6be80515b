//! `servers`: which servers may take part when federation is closed.

use serde_json::json;

use super::{Answer, Deps};
use crate::{Error, Servers};

pub(super) async fn run(deps: &Deps, verb: Servers) -> Result<Answer, Error> {
    match verb {
        Servers::Allow { server } => {
            let _turn = deps.servers.turn().await;
            let added = deps.servers.allow(&server).await?;
            tell(deps).await?;
            let said =
                if added { format!("{server} allowed") } else { format!("{server} was allowed already") };
            Ok(Answer::line(said, json!({ "server": server, "added": added })))
        }
        Servers::Deny { server } => {
            let _turn = deps.servers.turn().await;
            let removed = deps.servers.deny(&server).await?;
            tell(deps).await?;
            if !removed {
                return Err(Error::NotFound(server));
            }
            Ok(Answer::line(format!("{server} no longer allowed"), json!({ "server": server })))
        }
        Servers::List => match deps.servers.list().await? {
            None if deps.list.is_some() => {
                Ok(Answer::line("every server of the network's list may take part", json!(null)))
            }
            None => Ok(Answer::line("federation is open to every server", json!(null))),
            Some(listed) => {
                let line = |server: &chappe_identity::ListedServer| {
                    let source = if server.configured { " (configuration)" } else { "" };
                    format!("{:40}{source}", server.pattern).trim_end().to_owned()
                };
                let data = listed
                    .iter()
                    .map(|server| json!({ "server": server.pattern, "configured": server.configured }));
                Ok(Answer { lines: listed.iter().map(line).collect(), data: data.collect() })
            }
        },
    }
}

/// Hands the list to those that decide with it.
async fn tell(deps: &Deps) -> Result<(), Error> {
    if let Some(running) = &deps.running {
        let patterns = deps.servers.patterns().await?;
        (running.servers_changed)(patterns.as_deref());
    }
    Ok(())
}
