//! The worker of one service: one transaction at a time, in order, each until it is taken.
//!
//! Specification: application service API, "Pushing events".

use std::time::Duration;

use bytes::Bytes;
use chappe_rules::appservice::Registration;
use chappe_store::{
    Json, Position, Tx,
    services::{ServiceHead, ServiceHeads, ServiceQueue, ServiceSending, ServiceTransactions},
};
use http::Method;

use crate::{
    Error, Lane, Services,
    link::{Ask, CallError, segment},
    transaction::{Draft, ROWS},
};

/// Bytes of one row of a transaction on disk.
const PIECE: usize = 60_000;
/// The pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(30);

/// What came of an attempt.
enum Step {
    /// Something was told, or there was nothing in what waited: there may be more.
    Again,
    /// Nothing waits.
    Rest,
    /// The service did not take it.
    Refused(CallError),
}

impl Services {
    pub(crate) async fn work(self, id: String) {
        let Some(lane) = self.0.lanes.get(&id) else { return };
        let world = self.0.deps.link.world();
        let mut failures = 0_u32;
        while !world.is_stopping() {
            let step = tokio::select! {
                biased;
                () = world.stopping() => return,
                step = self.step(lane, failures) => step,
            };
            let pause = match step {
                Ok(Step::Again) => {
                    failures = 0;
                    continue;
                }
                Ok(Step::Rest) => {
                    failures = 0;
                    tokio::select! {
                        () = lane.wake.notified() => {}
                        () = world.stopping() => {}
                    }
                    continue;
                }
                Ok(Step::Refused(error)) => {
                    failures = failures.saturating_add(1);
                    lane.fleeting.clear();
                    let pause = self.pause(failures);
                    tracing::warn!(service = id, %error, ?pause, "an application service did not take a transaction");
                    pause
                }
                Err(error) => {
                    tracing::error!(service = id, %error, "the queue of an application service cannot be worked on");
                    PAUSE
                }
            };
            self.rest(lane, pause).await;
        }
    }

    /// Waits, not so long if the service shows that it is there, but always a little.
    async fn rest(&self, lane: &Lane, pause: Duration) {
        let world = self.0.deps.link.world();
        let least = pause.min(Duration::from_millis(self.0.deps.link.config().backoff_min_ms));
        tokio::select! {
            () = world.sleep(least) => {}
            () = world.stopping() => return,
        }
        tokio::select! {
            () = world.sleep(pause.saturating_sub(least)) => {}
            () = lane.alive.notified() => {}
            () = world.stopping() => {}
        }
    }

    /// Twice as long after each failure, with some spread so that services behind one proxy do not come together.
    fn pause(&self, failures: u32) -> Duration {
        let config = self.0.deps.link.config();
        let longest = config.backoff_max.saturating_mul(1_000).max(1);
        let doubled = config.backoff_min_ms.max(1).saturating_mul(1 << failures.saturating_sub(1).min(30));
        let pause = doubled.min(longest);
        Duration::from_millis(pause - self.0.deps.link.world().below(pause / 10 + 1))
    }

    async fn step(&self, lane: &Lane, failures: u32) -> Result<Step, Error> {
        let service = &lane.service;
        let head = self.head(service).await?;
        if let Some(sending) = &head.sending {
            let body = self.written(service, sending).await?;
            return self.deliver(service, &head, sending, body).await;
        }
        let rows = self.0.deps.store.read().service_queue(&service.id, ROWS).await?;
        let mut draft = self.draft(service, rows).await?;
        if failures == 0 {
            draft.ephemeral.extend(self.take_fleeting(lane));
        }
        let Some(last) = draft.last else {
            return if draft.is_empty() { Ok(Step::Rest) } else { self.mention(service, &draft).await };
        };
        if draft.is_empty() {
            let mut tx = Tx::new();
            drop_rows(&mut tx, service, last);
            self.0.deps.store.commit(tx).await?;
            return Ok(Step::Again);
        }
        let (head, sending, body) = self.write(service, head, &draft, last).await?;
        self.deliver(service, &head, &sending, body).await
    }

    async fn head(&self, service: &Registration) -> Result<ServiceHead, Error> {
        let found = self.0.deps.store.read().get::<ServiceHeads>(&service.id).await?;
        Ok(found.map(|Json(head)| head).unwrap_or_default())
    }

    /// Typing and presence alone: nothing that would have to be told again.
    async fn mention(&self, service: &Registration, draft: &Draft) -> Result<Step, Error> {
        let id = format!("f{}", self.0.deps.link.world().token(20));
        Ok(match self.send(service, &id, draft.body(service).into()).await {
            Ok(()) => Step::Again,
            Err(error) => Step::Refused(error),
        })
    }

    /// Writes a transaction before it is sent, so that it is the same whenever it is sent again.
    async fn write(
        &self,
        service: &Registration,
        head: ServiceHead,
        draft: &Draft,
        last: (u64, u32),
    ) -> Result<(ServiceHead, ServiceSending, Bytes), Error> {
        let body = draft.body(service);
        let mut pieces = 0;
        let mut tx = Tx::new();
        for (index, piece) in (0_u32..).zip(body.chunks(PIECE)) {
            tx.put::<ServiceTransactions>(&(service.id.clone(), index), &piece.to_vec());
            pieces = index + 1;
        }
        let inboxes = draft.inboxes.iter().map(|((user, device), at)| (user.clone(), device.clone(), *at));
        // Positions are given once: no transaction has had this id, not even in days that a restored backup has lost.
        let id = self.0.deps.store.read().position().0.to_string();
        let sending = ServiceSending { id, last, pieces, inboxes: inboxes.collect() };
        let new = ServiceHead { sending: Some(sending.clone()), ..head.clone() };
        tx.expect::<ServiceHeads>(&service.id, Some(&Json(head)));
        tx.put::<ServiceHeads>(&service.id, &Json(new.clone()));
        self.0.deps.store.commit(tx).await?;
        Ok((new, sending, body.into()))
    }

    /// The body of the transaction that is being sent, as it was written.
    async fn written(&self, service: &Registration, sending: &ServiceSending) -> Result<Bytes, Error> {
        let keys: Vec<_> = (0..sending.pieces).map(|index| (service.id.clone(), index)).collect();
        let pieces = self.0.deps.store.read().get_many::<ServiceTransactions>(&keys).await?;
        let missing = chappe_store::Error::Corrupt("transaction of an application service");
        let pieces: Option<Vec<Vec<u8>>> = pieces.into_iter().collect();
        Ok(pieces.ok_or(missing)?.concat().into())
    }

    async fn deliver(
        &self,
        service: &Registration,
        head: &ServiceHead,
        sending: &ServiceSending,
        body: Bytes,
    ) -> Result<Step, Error> {
        if let Err(error) = self.send(service, &sending.id, body).await {
            return Ok(Step::Refused(error));
        }
        for (user, device, at) in &sending.inboxes {
            self.0.deps.accounts.delete_to_device(user, device, Position(*at)).await?;
        }
        let mut tx = Tx::new();
        drop_rows(&mut tx, service, sending.last);
        tx.delete_prefix::<ServiceTransactions>(&service.id);
        tx.expect::<ServiceHeads>(&service.id, Some(&Json(head.clone())));
        tx.put::<ServiceHeads>(&service.id, &Json(ServiceHead { sending: None, ..head.clone() }));
        self.0.deps.store.commit(tx).await?;
        Ok(Step::Again)
    }

    async fn send(&self, service: &Registration, id: &str, body: Bytes) -> Result<(), CallError> {
        let path = format!("/transactions/{}", segment(id));
        let ask = Ask {
            method: Method::PUT,
            old: Some(path.clone()),
            path,
            query: String::new(),
            body,
            deadline: Duration::from_secs(self.0.deps.link.config().timeout),
        };
        self.0.deps.link.call(service, &ask).await.map(drop)
    }
}

/// What was told leaves the queue.
fn drop_rows(tx: &mut Tx, service: &Registration, (position, index): (u64, u32)) {
    let beyond = index.checked_add(1).map_or((position.saturating_add(1), 0), |index| (position, index));
    let first = (service.id.clone(), 0_u64, 0_u32);
    tx.delete_between::<ServiceQueue>(&first, &(service.id.clone(), beyond.0, beyond.1));
}
