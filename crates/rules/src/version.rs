//! The room versions spoken here.

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

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

/// The rules of a supported version; `None` for any other, which is then an incompatible room version.
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
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{SUPPORTED, rules};

    #[test]
    fn every_supported_version_has_rules() {
        assert!(SUPPORTED.iter().all(|version| rules(version).is_some()));
        assert!(rules(&"13".try_into().unwrap()).is_none());
    }
}
