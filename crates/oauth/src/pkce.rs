//! Proof keys: the client that gets the tokens is the one that asked (RFC 7636, `S256` alone).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::{error::Error, secrets::sha256};

/// Reads a challenge: SHA-256 in base64url.
pub(crate) fn challenge(text: &str, method: Option<&str>) -> Result<[u8; 32], Error> {
    if method != Some("S256") {
        return Err(Error::request("code_challenge_method must be S256"));
    }
    let hash = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    hash.ok_or_else(|| Error::request("code_challenge must be 32 bytes in base64url"))
}

/// Whether a verifier is the one that was promised. Malformed ones are not.
pub(crate) fn holds(challenge: &[u8; 32], verifier: &str) -> bool {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (43..=128).contains(&verifier.len())
        && verifier.chars().all(unreserved)
        && bool::from(sha256(verifier).ct_eq(challenge))
}

#[cfg(test)]
mod tests {
    use super::{challenge, holds};

    #[test]
    fn the_example_of_the_rfc_holds() {
        let said = challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", Some("S256")).unwrap();
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(holds(&said, verifier));
        assert!(!holds(&said, &verifier.replace('k', "l")) && !holds(&said, "") && !holds(&said, "dBjf"));
        let padded = format!("{verifier} ");
        assert!(!holds(&said, &padded));
    }

    #[test]
    fn other_methods_and_malformed_challenges_are_refused() {
        let right = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        for (text, method) in [
            (right, None),
            (right, Some("plain")),
            (right, Some("s256")),
            ("", Some("S256")),
            ("E9Mel", Some("S256")),
            ("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM", Some("S256")),
            ("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=", Some("S256")),
        ] {
            assert_eq!(challenge(text, method).unwrap_err().code(), "invalid_request");
        }
    }
}
