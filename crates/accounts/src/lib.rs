//! Users, passwords, devices, tokens, user-interactive authentication, end-to-end keys, to-device inbox, account data, profiles.
