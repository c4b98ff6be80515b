//! Named steps, bounded in time, and waiting for something to become true.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};

const STEP_LIMIT: Duration = Duration::from_secs(60);
const WAIT_LIMIT: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(30);

/// Runs one named step and says how long it took. The error names the step.
pub(crate) async fn step<T>(name: &str, action: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let result = limited(STEP_LIMIT, action).await.with_context(|| name.to_owned())?;
    println!("rust: ok   {name} ({} ms)", began.elapsed().as_millis());
    Ok(result)
}

/// Waits until `look` finds something, and gives that; not for ever.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            sleep(POLL).await;
        }
    };
    limited(WAIT_LIMIT, looking).await
}

async fn limited<T>(limit: Duration, action: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, action).await.with_context(|| format!("nothing within {} s", limit.as_secs()))?
}

/// Waits until something holds.
pub(crate) async fn until_true(mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    until(async || Ok(look().await?.then_some(()))).await
}
