//! From the log to local devices: wake-ups, the sync delta, unread counts, push.
