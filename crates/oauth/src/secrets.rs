//! Hashes of what is kept, and proofs that a form was shown to the browser that sends it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};

/// SHA-256: what is stored of a secret.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// What the forms shown to a browser carry: it follows from its cookie, and the cookie not from it.
pub(crate) fn form_proof(cookie: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&key(cookie), PURPOSE))
}

/// Whether a proof is that of this cookie.
pub(crate) fn is_form_proof(cookie: &str, proof: &str) -> bool {
    let Ok(tag) = URL_SAFE_NO_PAD.decode(proof) else { return false };
    hmac::verify(&key(cookie), PURPOSE, &tag).is_ok()
}

const PURPOSE: &[u8] = b"chappe form";

fn key(cookie: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, cookie.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{form_proof, is_form_proof};

    #[test]
    fn a_proof_is_of_one_cookie() {
        let proof = form_proof("one");
        assert!(is_form_proof("one", &proof));
        assert!(!is_form_proof("two", &proof) && !is_form_proof("one", "") && !is_form_proof("one", "é"));
    }
}
