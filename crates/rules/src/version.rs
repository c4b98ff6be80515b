//! The room versions spoken here.

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

use crate::owned_state;

/// Every room version that can be created and joined, oldest first.
pub const SUPPORTED: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Room versions 10 and 11 with state that belongs to users (MSC3757): can be asked for, and are not meant to last.
pub const UNSTABLE: [&str; 2] = ["org.matrix.msc3757.10", "org.matrix.msc3757.11"];

/// All room versions that have rules here: the supported ones, then the unstable ones.
pub fn known() -> Vec<RoomVersionId> {
    let unstable = UNSTABLE.iter().filter_map(|version| RoomVersionId::try_from(*version).ok());
    SUPPORTED.into_iter().chain(unstable).collect()
}

/// The rules of a known version; `None` for any other, which is then an incompatible room version.
pub fn rules(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    match version {
        RoomVersionId::V1 => Some(&RoomVersionRules::V1),
        RoomVersionId::V2 => Some(&RoomVersionRules::V2),
        RoomVersionId::V3 => Some(&RoomVersionRules::V3),
        RoomVersionId::V4 => Some(&RoomVersionRules::V4),
        RoomVersionId::V5 => Some(&RoomVersionRules::V5),
        RoomVersionId::V6 => Some(&RoomVersionRules::V6),
        RoomVersionId::V7 => Some(&RoomVersionRules::V7),
        RoomVersionId::V8 => Some(&RoomVersionRules::V8),
        RoomVersionId::V9 => Some(&RoomVersionRules::V9),
        RoomVersionId::V10 => Some(&RoomVersionRules::V10),
        RoomVersionId::V11 => Some(&RoomVersionRules::V11),
        RoomVersionId::V12 => Some(&RoomVersionRules::V12),
        other => match other.as_str() {
            "org.matrix.msc3757.10" => Some(&owned_state::V10),
            "org.matrix.msc3757.11" => Some(&owned_state::V11),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{SUPPORTED, UNSTABLE, known, rules};

    #[test]
    fn every_supported_version_has_rules() {
        assert_eq!(known().len(), SUPPORTED.len() + UNSTABLE.len());
        assert!(known().iter().all(|version| rules(version).is_some()));
        assert!(rules(&"13".try_into().unwrap()).is_none());
    }
}
