//! Delivery on real rooms and accounts over the memory engine.

mod devices;
mod forks;
mod holes;
mod house;
mod model;
mod notifications;
mod presence;
mod push;
mod removal;
mod rooms;
mod sliding;
mod sticky;
mod waiting;
