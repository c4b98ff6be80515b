//! Reports to the administrators: kept until one of them deals with them.

use chappe_rules::client::Form;
use chappe_store::{
    Json, Tx,
    reports::{Report, Reports},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use crate::{Actor, Error, Result, Rooms};

/// Longest reason, in bytes.
const LONGEST: usize = 5_000;

/// What is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// An event that the reporter may see.
    Event {
        /// Its room.
        room: OwnedRoomId,
        /// The event.
        event: OwnedEventId,
    },
    /// A room.
    Room {
        /// Which.
        room: OwnedRoomId,
    },
    /// A user, of whichever server.
    User {
        /// Whom.
        user: OwnedUserId,
    },
}

impl Rooms {
    /// Keeps a report. [`Error::NotFound`] for an event the reporter may not see and a room that is not known here.
    pub async fn report(&self, actor: &Actor, what: Reported, reason: String) -> Result<()> {
        if reason.len() > LONGEST {
            return Err(Error::TooLarge("the reason is too long".to_owned()));
        }
        let mut report = Report {
            reporter: actor.user.clone(),
            room: None,
            event: None,
            user: None,
            reason,
            at: self.0.world.now(),
        };
        match what {
            Reported::Event { room, event } => {
                self.visible_to_user(&actor.user, &room, &event).await?;
                (report.room, report.event) = (Some(room), Some(event));
            }
            Reported::Room { room } => {
                self.view(&room).await.map_err(|_| Error::NotFound("room"))?;
                report.room = Some(room);
            }
            Reported::User { user } => report.user = Some(user),
        }
        let mut tx = Tx::new();
        tx.put_at_position::<Reports>(&(), &(), &Json(report));
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Reports in order of arrival after a position, with their positions: for administrators.
    pub async fn reports(&self, after: u64, limit: usize) -> Result<Vec<(u64, Report)>> {
        let rows = self.0.store.read().scan_from::<Reports>(&(), &(after + 1), limit).await?;
        Ok(rows.into_iter().map(|((position, ()), Json(report))| (position, report)).collect())
    }

    /// Every report with its position, the oldest first: for administrators.
    pub async fn all_reports(&self) -> Result<Vec<(u64, Report)>> {
        let rows = self.0.store.read().scan_all::<Reports>(&()).await?;
        Ok(rows.into_iter().map(|((position, ()), Json(report))| (position, report)).collect())
    }

    /// The report at a position.
    pub async fn report_at(&self, position: u64) -> Result<Option<Report>> {
        let found = self.0.store.read().get::<Reports>(&(position, ())).await?;
        Ok(found.map(|Json(report)| report))
    }

    /// Deletes a report that was dealt with; none is fine.
    pub async fn delete_report(&self, position: u64) -> Result<()> {
        let mut tx = Tx::new();
        tx.delete::<Reports>(&(position, ()));
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// The event that was reported, as administrators see it; none if it is gone.
    pub async fn reported_event(&self, report: &Report) -> Result<Option<Box<RawValue>>> {
        let (Some(room), Some(event)) = (&report.room, &report.event) else { return Ok(None) };
        let view = match self.view(room).await {
            Ok(view) => view,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(num) = view.reader.event_num(view.nid, event).await? else { return Ok(None) };
        match view.load_one(num).await {
            Ok(event) if view.has_expired(&event) => Ok(None),
            Ok(event) => Ok(view.render_state(&[event], Form::Full)?.pop()),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
