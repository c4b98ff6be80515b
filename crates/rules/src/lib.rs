//! Pure Matrix: event format, hashes, authorization, state resolution, redaction, visibility, push rules, access policy.
