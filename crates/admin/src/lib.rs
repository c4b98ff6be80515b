//! Admin API and command-line verbs: domains, users, rooms, servers.
