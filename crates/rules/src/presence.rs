//! How somebody is, in the words that there are for it.

use ruma::presence::PresenceState;

/// Whether a state is one of the specification's: any other text would be kept and told to everybody, however long.
///
/// Specification: client-server API, "Presence".
pub fn is_known(state: &PresenceState) -> bool {
    matches!(state, PresenceState::Online | PresenceState::Offline | PresenceState::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn there_are_three_states() {
        for state in ["online", "offline", "unavailable"] {
            assert!(is_known(&state.into()), "{state}");
        }
        assert!(!is_known(&"dancing".into()));
    }
}
