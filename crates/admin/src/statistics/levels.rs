//! How things stand when a day begins: open accounts, people who were here lately, what files take up.

use chappe_store::{
    Json, Reader, Tx,
    accounts::{LastActive, Users},
    statistics::StatisticsDay,
};

use super::{
    DAY_MS, Statistics, kinds,
    sums::{People, Sums, forget_before},
};
use crate::Error;

/// Accounts read at once.
const PAGE: usize = 1_000;
/// Days within which somebody was here lately.
const LATELY: u64 = 30;

impl Statistics {
    /// Writes down how things stand, once a day, and forgets what is too old; not by a clock that is in doubt.
    pub(super) async fn begin_day(&self) -> Result<(), Error> {
        let Some(now) = self.0.deps.world.settled_now() else { return Ok(()) };
        let (store, today) = (&self.0.deps.store, now / DAY_MS);
        let reader = store.read();
        let known = reader.get::<StatisticsDay>(&()).await?;
        // A later day was written down by a clock that was wrong, and set right since.
        if known == Some(today) {
            return Ok(());
        }
        let mut sums = Sums::new(self.config().smallest_group);
        self.look_at_accounts(&reader, today, &mut sums).await?;
        let mut tx = Tx::new();
        tx.expect::<StatisticsDay>(&(), known.as_ref()).put::<StatisticsDay>(&(), &today);
        forget_before(&mut tx, today.saturating_sub(u64::from(self.config().keep_days)));
        sums.draft_anew(&mut tx);
        drop(reader);
        Ok(store.commit(tx).await.map(drop)?)
    }

    async fn look_at_accounts(&self, reader: &Reader<'_>, today: u64, sums: &mut Sums) -> Result<(), Error> {
        let mut from = String::new();
        loop {
            let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = format!("{last}\0");
            let (users, open): (Vec<_>, Vec<_>) =
                page.into_iter().map(|(user, Json(record))| (user, record.deactivated.is_none())).unzip();
            let active = reader.get_many::<LastActive>(&users).await?;
            let bytes = self.0.deps.media.bytes_of_all(&users).await?;
            let mut people = People::default();
            for (((user, is_open), active), bytes) in users.iter().zip(open).zip(active).zip(bytes) {
                let Some(domain) = people.domain(reader, user, self.server()).await? else { continue };
                if bytes > 0 {
                    sums.add((today, &domain, kinds::MEDIA_BYTES), user, bytes);
                }
                if !is_open {
                    continue;
                }
                sums.add((today, &domain, kinds::OPEN), user, 1);
                if active.is_some_and(|day| day + LATELY >= today) {
                    sums.add((today, &domain, kinds::ACTIVE_30_DAYS), user, 1);
                }
            }
        }
    }
}
