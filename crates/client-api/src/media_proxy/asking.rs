//! Who asks for a scanned medium, and how far to go for them.

use axum::extract::{FromRef, FromRequestParts};
use chappe_media::{Media, Place, Reach};
use chappe_scanner::{Scanner, Target};
use chappe_web::Origin;
use http::{header, request::Parts};

use super::refusal::{Refusal, Result};
use crate::{
    Api,
    media::{may_fetch, reach},
    rates::Limits,
    requester::Requester,
};

/// Somebody who asks, where there is a scanner. A token counts in the header alone.
pub(super) struct Asking {
    pub(super) scanner: Scanner,
    media: Media,
    limits: Limits,
    who: Who,
}

enum Who {
    User(Requester),
    Nobody(Origin),
}

impl FromRequestParts<Api> for Asking {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let scanner = Option::<Scanner>::from_ref(api).ok_or_else(chappe_web::Error::unrecognized)?;
        let who = if parts.headers.contains_key(header::AUTHORIZATION) {
            Who::User(Requester::from_request_parts(parts, api).await?)
        } else {
            let Ok(origin) = Origin::from_request_parts(parts, api).await;
            Who::Nobody(origin)
        };
        Ok(Self { scanner, media: Media::from_ref(api), limits: Limits::from_ref(api), who })
    }
}

impl Asking {
    /// By what whoever asks is counted.
    pub(super) fn name(&self) -> String {
        match &self.who {
            Who::User(requester) => requester.user().to_string(),
            Who::Nobody(origin) => origin.subject(),
        }
    }

    /// Counts what has to be fetched and scanned. The place is to be kept until it is there.
    pub(super) async fn reach(&self, target: &Target) -> Result<(Reach, Option<Place>)> {
        let medium = (target.server(), target.id());
        let (reach, mut place) = match &self.who {
            Who::User(requester) => {
                let place = may_fetch(&self.media, &self.limits, requester, medium).await?;
                (Reach::Anywhere, place)
            }
            Who::Nobody(origin) => (reach(&self.media, (&self.limits, *origin), medium, true).await?, None),
        };
        if !self.scanner.is_known(target) {
            match &self.who {
                Who::User(requester) => {
                    self.limits.user("scan", requester, |rates| rates.scan)?;
                    if place.is_none() {
                        place = Some(self.media.place_for(requester.user()).await?);
                    }
                }
                Who::Nobody(origin) => self.limits.ip("scan", *origin, |rates| rates.scan)?,
            }
        }
        Ok((reach, place))
    }
}
