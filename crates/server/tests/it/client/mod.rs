//! The client API as a whole: the router of an assembled server, without sockets and without a disk for the database.

mod account;
mod admin;
mod console;
mod dehydrated;
mod home;
mod hostile;
mod keys;
mod media;
mod notifications;
mod oauth;
mod old_sync;
mod people;
mod previews;
mod reindex;
mod rooms;
mod search;
mod sliding;
mod sso;
mod strangers;
mod table;
mod unstable;
mod visibility;
