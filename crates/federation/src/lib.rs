//! Server-server: inbound handlers, signed client, key ring, discovery, one sender per destination.
