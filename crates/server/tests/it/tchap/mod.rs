//! What the State's network expects of its servers, row by row of docs/tchap.md.

mod accounts;
mod ministry;
mod validity;
