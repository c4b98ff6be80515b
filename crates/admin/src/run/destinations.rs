//! `destinations`: how sending to other servers goes.

use chappe_federation::{Destination, destinations, queue_length};
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Destinations, Error};

pub(super) async fn run(deps: &Deps, verb: Destinations) -> Result<Answer, Error> {
    match verb {
        Destinations::List { limit, after } => {
            let network = deps.running.as_ref().map(|running| running.federation.network());
            let now = deps.world.now();
            let (mut lines, mut rows) = (Vec::new(), Vec::new());
            for one in destinations(&deps.store, network, after.as_deref(), limit).await? {
                let queue = queue_length(&deps.store, &one.server).await?;
                let reached = network.and_then(|network| network.reached_at(&one.server));
                lines.push(line((&one, queue), reached, now));
                rows.push(data((&one, queue), reached));
            }
            Ok(Answer { lines, data: rows.into() })
        }
        Destinations::Retry { server: Some(server), all: false } => {
            deps.running()?.federation.retry(Some(&server)).await?;
            Ok(Answer::line(format!("{server} is tried now"), json!({ "server": server })))
        }
        Destinations::Retry { server: None, all: true } => {
            deps.running()?.federation.retry(None).await?;
            Ok(Answer::line("every server that something waits for is tried now", json!({ "all": true })))
        }
        Destinations::Retry { .. } => Err(Error::Invalid("name one server, or all".to_owned())),
    }
}

fn line((one, queue): (&Destination, usize), reached: Option<u64>, now: u64) -> String {
    let state = &one.state;
    let minutes = |ms: u64| ms.div_ceil(60_000);
    let ago = |at: u64| minutes(now.saturating_sub(at));
    let mut said = vec![format!("{:40} {queue} waiting", one.server)];
    if state.failures > 0 {
        said.push(format!("not reached for {} min ({} times)", ago(state.failing_since), state.failures));
    }
    if state.refused.count > 0 {
        let times = state.refused.count;
        said.push(format!("takes nothing for {} min ({times} times)", ago(state.refused.since)));
    }
    if one.failing_since().is_some() {
        said.push(match state.send_at().saturating_sub(now) {
            0 => "tried now".to_owned(),
            wait => format!("tried in {} min", minutes(wait)),
        });
    }
    said.extend(reached.map(|at| format!("reached {} min ago", ago(at))));
    said.join(", ")
}

fn data((one, queue): (&Destination, usize), reached: Option<u64>) -> Value {
    let state = &one.state;
    json!({
        "server": one.server, "queue": queue, "failures": state.failures, "refusals": state.refused.count,
        "failing_since": one.failing_since(),
        "retry_at": (state.send_at() > 0).then(|| state.send_at()),
        "reached_at": reached,
    })
}
