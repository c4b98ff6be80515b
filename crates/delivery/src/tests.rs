//! Delivery on real rooms and accounts over the memory engine.

mod crowds;
mod devices;
mod erased;
mod forks;
mod holes;
mod house;
mod members;
mod model;
mod notifications;
mod presence;
mod push;
mod removal;
mod restart;
mod rooms;
mod sliding;
mod sticky;
mod unread;
mod waiting;
