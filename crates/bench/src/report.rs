//! What a run found: a table in Markdown, fit for docs/benchmarks.md.

use std::{
    env, fmt, fs,
    io::Write as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::stats::Samples;

/// One figure.
pub(crate) struct Row {
    what: String,
    measured: String,
    aim: Option<(String, bool)>,
}

impl Row {
    /// A figure without an aim.
    pub(crate) fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), aim: None }
    }

    /// The same figure beside what it should be, and whether it is.
    pub(crate) fn aim(self, aim: impl Into<String>, met: bool) -> Self {
        Self { aim: Some((aim.into(), met)), ..self }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, measured, aim } = self;
        let (aim, verdict) = match aim {
            None => ("", ""),
            Some((aim, true)) => (&**aim, "met"),
            Some((aim, false)) => (&**aim, "**missed**"),
        };
        write!(f, "| {what} | {measured} | {aim} | {verdict} |")
    }
}

/// The table with its head.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["| what | measured | aim | |".to_owned(), "|---|---|---|---|".to_owned()];
    let lines: Vec<String> = head.into_iter().chain(rows.iter().map(Row::to_string)).collect();
    lines.join("\n")
}

/// Date, version and machine, so that the figures mean something later.
pub(crate) fn circumstances() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
    };
    let date = said("date", &["-u", "+%F %H:%M UTC"]).unwrap_or_default();
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory.unwrap_or(0) >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = env::temp_dir();
    let disk = file_system(&folder).unwrap_or_else(|| "unknown".to_owned());
    let sync = sync_time(&folder).map_or_else(|error| format!("{error:#}"), |samples| samples.to_string());
    format!(
        "{date}, commit {commit}. {cores} cores of {model}, {memory} GiB, Linux {}, {disk}; appending 4 KiB \
         and waiting for the disk: {sync}.",
        kernel.trim(),
    )
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The type of the file system that holds `folder`, and its device.
fn file_system(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut best = (0, None);
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        if folder.starts_with(place) && place.len() >= best.0 {
            best = (place.len(), Some(format!("{kind} on {device}")));
        }
    }
    best.1
}

/// How long the disk takes to acknowledge 4 KiB: the floor of every durable commit.
fn sync_time(folder: &Path) -> Result<Samples> {
    let mut file = tempfile::tempfile_in(folder).context("a temporary file")?;
    let mut samples = Samples::default();
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let begin = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        samples.add(begin.elapsed());
    }
    Ok(samples)
}
