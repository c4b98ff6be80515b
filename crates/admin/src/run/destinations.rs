//! `destinations`: how sending to other servers goes.

use chappe_federation::{Destination, destinations};
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Destinations, Error};

pub(super) async fn run(deps: &Deps, verb: Destinations) -> Result<Answer, Error> {
    match verb {
        Destinations::List { limit, after } => {
            let found = destinations(&deps.store, after.as_deref(), limit).await?;
            let now = deps.world.now();
            let reached = |one: &Destination| {
                let running = deps.running.as_ref()?;
                running.federation.network().reached_at(&one.server)
            };
            let lines = found.iter().map(|one| line(one, reached(one), now)).collect();
            let data = found.iter().map(|one| data(one, reached(one))).collect();
            Ok(Answer { lines, data })
        }
        Destinations::Retry { server } => {
            deps.running()?.federation.retry(Some(&server)).await?;
            Ok(Answer::line(format!("{server} is tried now"), json!({ "server": server })))
        }
    }
}

fn line(one: &Destination, reached: Option<u64>, now: u64) -> String {
    let minutes = |ms: u64| ms.div_ceil(60_000);
    let ago = |at: u64| minutes(now.saturating_sub(at));
    let mut said = vec![format!("{:40} {} waiting", one.server, one.queue)];
    if one.failures > 0 {
        said.push(format!("failing for {} min ({} times)", ago(one.failing_since), one.failures));
        said.push(match one.retry_at.saturating_sub(now) {
            0 => "tried now".to_owned(),
            wait => format!("tried in {} min", minutes(wait)),
        });
    }
    said.extend(reached.map(|at| format!("reached {} min ago", ago(at))));
    said.join(", ")
}

fn data(one: &Destination, reached: Option<u64>) -> Value {
    json!({
        "server": one.server, "queue": one.queue, "failures": one.failures,
        "failing_since": (one.failures > 0).then_some(one.failing_since),
        "retry_at": (one.retry_at > 0).then_some(one.retry_at),
        "reached_at": reached,
    })
}
