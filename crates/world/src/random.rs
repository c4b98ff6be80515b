//! Randomness: the system's, or a stream that a seed fixes.

use parking_lot::Mutex;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use ring::rand::{SecureRandom, SystemRandom};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

pub(crate) enum Random {
    System(SystemRandom),
    Seeded(Box<Mutex<StdRng>>),
}

impl Random {
    pub(crate) fn system() -> Self {
        Self::System(SystemRandom::new())
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(Box::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        match self {
            Self::System(random) => {
                random.fill(bytes).expect("the system's random source does not fail once it is up");
            }
            Self::Seeded(rng) => rng.lock().fill_bytes(bytes),
        }
    }
}

/// Draws letters and digits evenly: bytes from 248 on are drawn again.
pub(crate) fn alphanumeric(length: usize, fill: impl Fn(&mut [u8])) -> String {
    let mut text = String::with_capacity(length);
    let mut drawn = [0; 64];
    while text.len() < length {
        fill(&mut drawn);
        let fair = drawn.iter().filter(|byte| **byte < 248);
        let wanted = length - text.len();
        text.extend(fair.take(wanted).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Random, alphanumeric};

    #[test]
    fn a_seed_fixes_the_stream_and_another_seed_another() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            alphanumeric(40, |bytes| random.fill(bytes))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(3).len(), 40);
    }

    #[test]
    fn the_system_source_never_repeats() {
        let random = Random::system();
        let draw = || alphanumeric(32, |bytes| random.fill(bytes));
        assert_ne!(draw(), draw());
    }
}
