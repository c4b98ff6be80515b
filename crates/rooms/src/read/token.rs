//! Pagination tokens: `t<ordinal>`, and sync tokens translated to a place in one room's timeline.

use chappe_store::Position;

use crate::{Error, Result, read::view::View};

/// A place between two events of a room's timeline: just before the event with this ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub i64);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl View<'_> {
    /// The place a token stands for: one of this server's pagination tokens, or a sync token.
    /// [`Error::InvalidParam`] for anything else.
    pub async fn place(&self, token: &str) -> Result<Place> {
        if let Some(ordinal) = token.strip_prefix('t').and_then(|ordinal| ordinal.parse().ok()) {
            return Ok(Place(ordinal));
        }
        let position = sync_position(token).ok_or(Error::InvalidParam("unknown token".to_owned()))?;
        Ok(Place(self.reader.ordinal_after(self.nid, position).await?))
    }
}

/// The position in a sync token, `c1_<position>_<ephemeral>`, or in one of a sliding sync, `s1_<connection>_<answer>_` and
/// a sync token.
pub fn sync_position(token: &str) -> Option<Position> {
    let token = match token.strip_prefix("s1_") {
        Some(sliding) => sliding.splitn(3, '_').nth(2)?,
        None => token,
    };
    let (position, _) = token.strip_prefix("c1_")?.split_once('_')?;
    position.parse().ok().map(Position)
}

#[cfg(test)]
mod tests {
    use super::{Place, sync_position};

    #[test]
    fn tokens_are_read_back() {
        assert_eq!(Place(-3).to_string(), "t-3");
        assert_eq!(sync_position("c1_17_3.4").unwrap().0, 17);
        assert_eq!(sync_position("s1_9f_2_c1_17_3-4").unwrap().0, 17);
        for bad in ["", "c1_", "c1_x_1", "c2_1_1", "17", "s1_9f_2", "s1_9f_2_17"] {
            assert!(sync_position(bad).is_none(), "{bad}");
        }
    }
}
