//! Endpoint types on axum and hyper: extractors, error bodies, limits, rate limiting.
