//! Profiles of users of other servers, kept for a moment. Whoever asks chooses what is kept, and their servers how long it is.

use std::sync::Arc;

use chappe_accounts::Profile;
use quick_cache::{Weighter, sync::Cache};
use ruma::OwnedUserId;

/// How long a profile is kept, in milliseconds.
const LIFETIME: u64 = 5 * 60_000;
/// Answers kept, as one expects them, and bytes of all together.
const ANSWERS: usize = 10_000;
const ANSWERS_BYTES: u64 = 32 << 20;

/// A user, and the field that was asked for; none for all of them.
pub(super) type Asked = (OwnedUserId, Option<String>);

/// Until when an answer is good, and the fields as JSON: read, they take up many times the bytes.
type Answer = (u64, Arc<str>);

/// Profiles of remote users, asked for lately.
pub(crate) struct Profiles(Cache<Asked, Answer, BySize>);

impl Default for Profiles {
    fn default() -> Self {
        Self(Cache::with_weighter(ANSWERS, ANSWERS_BYTES, BySize))
    }
}

impl Profiles {
    /// What was answered a moment ago.
    pub(super) fn get(&self, asked: &Asked, now: u64) -> Option<Profile> {
        let (until, fields) = self.0.get(asked)?;
        if until <= now {
            self.0.remove_if(asked, |(until, _)| *until <= now);
            return None;
        }
        Some(Profile { fields: serde_json::from_str(&fields).ok()? })
    }

    pub(super) fn keep(&self, asked: Asked, profile: &Profile, now: u64) {
        if let Ok(fields) = serde_json::to_string(&profile.fields) {
            self.0.insert(asked, (now.saturating_add(LIFETIME), fields.into()));
        }
    }
}

/// Weighs answers by about the bytes that they take up.
#[derive(Clone)]
struct BySize;

impl Weighter<Asked, Answer> for BySize {
    fn weight(&self, (user, field): &Asked, (_, fields): &Answer) -> u64 {
        let texts = user.as_str().len() + field.as_ref().map_or(0, String::len) + fields.len();
        u64::try_from(texts + size_of::<(Asked, Answer)>()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;
    use serde_json::json;

    use super::{ANSWERS_BYTES, Asked, LIFETIME, Profile, Profiles};

    fn asked(field: usize) -> Asked {
        (owned_user_id!("@eve:evil.example"), Some(format!("field{field}")))
    }

    fn profile(bytes: usize) -> Profile {
        Profile { fields: [("x".to_owned(), json!("x".repeat(bytes)))].into() }
    }

    #[test]
    fn profiles_that_are_kept_have_so_many_bytes_together() {
        let (profiles, long) = (Profiles::default(), profile(64 << 10));
        for field in 0..1_000 {
            profiles.keep(asked(field), &long, 1);
        }
        let bytes: u64 = profiles.0.iter().map(|(_, (_, fields))| fields.len() as u64).sum();
        assert!((1..=ANSWERS_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_profile_is_kept_for_a_while_and_then_gone() {
        let (profiles, short) = (Profiles::default(), profile(1));
        profiles.keep(asked(0), &short, 1);
        assert_eq!(profiles.get(&asked(0), LIFETIME), Some(short));
        assert_eq!(profiles.get(&asked(1), LIFETIME), None);
        assert_eq!(profiles.get(&asked(0), LIFETIME + 1), None);
        assert_eq!(profiles.0.len(), 0);
    }
}
