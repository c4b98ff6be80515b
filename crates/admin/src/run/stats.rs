//! `stats`: how much happened, by day, domain and kind.

use serde_json::json;

use super::{Answer, Deps};
use crate::{Error, statistics::Period, verb::Stats};

pub(super) async fn run(deps: &Deps, verb: Stats) -> Result<Answer, Error> {
    let Stats { from, to, by, csv } = verb;
    let report = deps.running()?.statistics.report(&Period { from, to, by }).await?;
    let lines = if csv { report.csv().lines().map(str::to_owned).collect() } else { report.lines() };
    Ok(Answer { lines, data: json!(report) })
}
