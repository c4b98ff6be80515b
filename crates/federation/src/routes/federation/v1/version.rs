//! `GET /_matrix/federation/v1/version`: what this server is.

use chappe_web::Ruma;
use ruma::api::federation::discovery::get_server_version::v1::{Request, Response, Server};

pub(in crate::routes) async fn handler(_: Ruma<Request>) -> Ruma<Response> {
    let mut server = Server::new();
    server.name = Some("Chappe".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = Response::new();
    response.server = Some(server);
    Ruma(response)
}
