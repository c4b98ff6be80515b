//! Trying a transaction again when another writer was first.

/// Runs a block until it does not end in a conflict, at most [`crate::accounts::ATTEMPTS`] times; the block reads
/// anew each time.
macro_rules! retry {
    ($body:block) => {{
        let mut left = crate::accounts::ATTEMPTS;
        loop {
            let outcome: Result<_, crate::Error> = async { $body }.await;
            match outcome {
                Err(crate::Error::Store(chappe_store::Error::Conflict)) if left == 0 => {
                    break Err(crate::Error::Busy);
                }
                Err(crate::Error::Store(chappe_store::Error::Conflict)) => left -= 1,
                other => break other,
            }
        }
    }};
}

pub(crate) use retry;
