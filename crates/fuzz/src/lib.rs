//! Fuzzing on stable Rust, as an ordinary test: real inputs from a folder in the repository, changed by bytes, by words and,
//! where they are JSON, by structure.
//!
//! A test runs a few thousand inputs; with `FUZZ_SECONDS=3600` it runs until it had so much time of a processor. Inputs that
//! come to something new (the target tells how each ended) are changed further. What makes the target panic is written into the folder, so that it is
//! tried first from then on.

mod mutate;

use std::{
    collections::HashSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use self::mutate::Mutator;

/// Inputs of a brief run.
const BRIEF: usize = 2_000;
/// Inputs that are changed further, at most.
const POOL: usize = 4_000;
/// An outcome is told apart by so much of its text.
const OUTCOME_BYTES: usize = 80;

/// What is fuzzed with what.
pub struct Fuzz {
    folder: PathBuf,
    pool: Vec<Vec<u8>>,
    brief: usize,
}

impl Fuzz {
    /// The inputs in the folder `corpus/<name>` of a crate, which gives its `CARGO_MANIFEST_DIR`.
    ///
    /// # Panics
    ///
    /// If the folder cannot be read, or holds nothing.
    pub fn of(manifest_dir: &str, name: &str) -> Self {
        let folder = PathBuf::from(manifest_dir).join("corpus").join(name);
        let entries = fs::read_dir(&folder).expect("the folder of the corpus");
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let pool: Vec<Vec<u8>> = files.iter().filter_map(|file| fs::read(file).ok()).collect();
        assert!(!pool.is_empty(), "{} holds nothing", folder.display());
        Self { folder, pool, brief: BRIEF }
    }

    /// One more input to begin with.
    #[must_use]
    pub fn with(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.pool.push(input.into());
        self
    }

    /// For a target that takes long: so many inputs are a brief run.
    #[must_use]
    pub fn brief(self, inputs: usize) -> Self {
        Self { brief: inputs, ..self }
    }

    /// Runs the target, which tells how each input ended. Panics as the target does; the input is kept.
    pub fn run<O: AsRef<str>>(self, mut target: impl FnMut(&[u8]) -> O) {
        let Self { folder, mut pool, brief } = self;
        let (time, begin) = (seconds(), spent());
        let mut mutator = Mutator::new(if time.is_some() { seed() } else { 1 });
        let mut outcomes = HashSet::new();
        let known = pool.len();
        for run in 0.. {
            let over = match time {
                Some(time) => run % 64 == 0 && spent().saturating_sub(begin) >= time,
                None => run >= brief + known,
            };
            if over && run >= known {
                tell(run, outcomes.len());
                break;
            }
            let input = if run < known { pool[run].clone() } else { mutator.next(&pool) };
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&input))).unwrap_or_else(|panic| {
                let file = folder.join(format!("found-{:016x}", digest(&input)));
                fs::write(file, &input).ok();
                resume_unwind(panic)
            });
            let outcome = outcome.as_ref().as_bytes();
            let is_news = outcomes.insert(digest(&outcome[..outcome.len().min(OUTCOME_BYTES)]));
            if run >= known && is_news && pool.len() < POOL {
                pool.push(input);
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a run came to is written down")]
fn tell(inputs: usize, ends: usize) {
    println!("{inputs} inputs, {ends} ways to end");
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says how long")]
fn seconds() -> Option<Duration> {
    let seconds = std::env::var("FUZZ_SECONDS").ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What this thread had of a processor, in a place where that is told (Linux); else the time of day.
fn spent() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(since_1970, Duration::from_nanos)
}

/// Another one for each long run.
fn seed() -> u64 {
    u64::try_from(since_1970().as_nanos() >> 10).unwrap_or(1) | 1
}

#[expect(clippy::disallowed_methods, reason = "tests are outside the world")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
