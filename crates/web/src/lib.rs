//! Endpoint types on axum and hyper: extractors, error bodies, limits, rate limiting.
//!
//! A router is made of [`Routes`], whose paths come from the endpoint types themselves, and [`finish`]ed once:
//! CORS, request ids, Matrix errors for everything that goes wrong before a handler runs. Handlers take
//! [`Ruma<T>`] and give `Result<Ruma<Response>, Error>`.

mod budget;
mod error;
mod finish;
mod origin;
mod page;
mod payload;
mod rates;
mod routes;
mod ruma;
mod settings;
mod shelf;

pub use self::{
    error::{Error, Result},
    finish::{UsedUp, finish},
    origin::{Origin, Peer},
    page::Page,
    payload::Payload,
    rates::{Rate, RateLimiter},
    routes::{Auth, Route, Routes},
    ruma::{Arguments, BodyLimit, Parameters, Ruma, WithBody, body_bytes},
    settings::Settings,
    shelf::{IN_ONE_PIECE, Kept, Shelf},
};
