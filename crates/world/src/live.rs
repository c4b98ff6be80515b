//! A value that is replaced while the server runs.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// A section of the configuration, or something made of one, that may be replaced at any moment: a handle, clones share it.
/// Whoever reads several things that must agree takes the whole once.
pub struct Live<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: ArcSwap<T>,
    changes: watch::Sender<()>,
}

impl<T> Live<T> {
    /// A value that holds until another one takes its place.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner { value: ArcSwap::from_pointee(value), changes: watch::Sender::new(()) }))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.0.value.load_full()
    }

    /// Puts another value in its place. Who has taken the old one goes on with it.
    pub fn set(&self, value: T) {
        self.0.value.store(Arc::new(value));
        self.0.changes.send_replace(());
    }

    /// Tells of the values that are set from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Live;

    #[tokio::test]
    async fn clones_see_the_new_value_and_who_took_the_old_one_keeps_it() {
        let live = Live::new(1);
        let (other, taken, mut changes) = (live.clone(), live.get(), live.changes());
        assert!(!changes.has_changed().unwrap());
        live.set(2);
        assert_eq!((*other.get(), *taken), (2, 1));
        changes.changed().await.unwrap();
    }
}
