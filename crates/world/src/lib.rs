//! Time, randomness, task spawning, outbound HTTP and DNS: small traits, real ones, seeded fakes.
