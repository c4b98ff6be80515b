//! What the State's network expects of its servers, row by row of docs/tchap.md.

mod calls;
mod clamd;
mod office;
mod scanner;
