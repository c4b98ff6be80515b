//! The signed list of the servers of a network, as it was applied last.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A list whose signature was right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldList {
    /// Its number: no list with a lower one is applied any more, however long ago this one has expired.
    pub sequence: u64,
    /// When it was applied here, in milliseconds since 1970.
    pub applied_at: u64,
    /// The signed document, as canonical JSON.
    pub text: String,
}

table! {
    /// Name of the network → its list.
    NetworkLists = NETWORK_LISTS: OwnedServerName => Json<HeldList>;
}

#[cfg(test)]
mod tests {
    use super::HeldList;
    use crate::{Json, Value};

    #[test]
    fn golden_bytes() {
        let held = Json(HeldList { sequence: 7, applied_at: 9, text: "{}".to_owned() });
        assert_eq!(held.to_bytes(), br#"{"sequence":7,"applied_at":9,"text":"{}"}"#);
        assert_eq!(Json::<HeldList>::from_bytes(&held.to_bytes()).unwrap(), held);
    }
}
