//! Media: uploads, downloads, thumbnails, previews of web pages.
#![expect(deprecated, reason = "old clients use the endpoints without log-in, and ruma marks them")]

mod config;
mod create;
mod download;
mod headers;
mod legacy;
mod preview_url;
mod thumbnail;
mod upload;

use chappe_web::Routes;
use ruma::api::client::{authenticated_media as api, media as old};

pub(crate) use self::{
    download::{LONGEST, may_fetch},
    headers::serve,
    legacy::reach,
    thumbnail::wanted,
};
use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<old::create_content::v3::Request, _>(upload::at_once)
        .on::<old::create_content_async::v3::Request, _>(upload::to_address)
        .on::<old::create_mxc_uri::v1::Request, _>(create::handler)
        .on::<old::get_media_config::v3::Request, _>(config::handler)
        .on::<api::get_media_config::v1::Request, _>(config::handler)
        .on::<api::get_content::v1::Request, _>(download::handler)
        .on::<api::get_content_as_filename::v1::Request, _>(download::named)
        .on::<api::get_content_thumbnail::v1::Request, _>(thumbnail::handler)
        .on::<api::get_media_preview::v1::Request, _>(preview_url::handler)
        .on::<old::get_media_preview::v3::Request, _>(preview_url::legacy)
        .on::<old::get_content::v3::Request, _>(legacy::download)
        .on::<old::get_content_as_filename::v3::Request, _>(legacy::named)
        .on::<old::get_content_thumbnail::v3::Request, _>(legacy::thumbnail)
}
