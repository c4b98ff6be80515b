//! `/_synapse/admin/v1`.

mod account;
mod background_updates;
mod event_reports;
mod federation;
mod media;
mod purge_history;
mod registration_tokens;
mod rooms;
mod scheduled_tasks;
mod send_server_notice;
mod server_version;
mod statistics;
mod user;
mod users;

use axum::handler::Handler;
use chappe_web::{Auth, Routes};
use http::Method;

use super::Api;

pub(super) use self::{
    account::others,
    rooms::{DeleteRequest, must_know},
    users::canonical,
};

/// Every endpoint below `/_synapse/admin/v1`.
pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .and(account::routes())
        .and(background_updates::routes())
        .and(event_reports::routes())
        .and(federation::routes())
        .and(media::routes())
        .and(purge_history::routes())
        .and(registration_tokens::routes())
        .and(rooms::routes())
        .and(scheduled_tasks::routes())
        .and(send_server_notice::routes())
        .and(server_version::routes())
        .and(statistics::routes())
        .and(user::routes())
        .and(users::routes())
}

/// Places endpoints in a table by method and path.
pub(super) trait Place: Sized {
    /// `GET`.
    fn get<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self;
    /// `POST`.
    fn post<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self;
    /// `PUT`.
    fn put<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self;
    /// `DELETE`.
    fn delete<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self;
}

impl Place for Routes<Api> {
    fn get<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self {
        self.at(&Method::GET, path, Auth::Token, handler)
    }

    fn post<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self {
        self.at(&Method::POST, path, Auth::Token, handler)
    }

    fn put<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self {
        self.at(&Method::PUT, path, Auth::Token, handler)
    }

    fn delete<A: 'static>(self, path: &str, handler: impl Handler<A, Api>) -> Self {
        self.at(&Method::DELETE, path, Auth::Token, handler)
    }
}
