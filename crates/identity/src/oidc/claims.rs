//! What a verified token must say to be meant for this server, this browser and this moment; pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::digest::{SHA256, SHA512, digest};
use serde_json::Value;

use super::{
    jose::{Algorithm, Claims, Flaw},
    seal::same,
};

/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 60;
/// How old a token may be that was asked for just now, in seconds.
const OLDEST: u64 = 600;

/// What an ID token is judged by (OpenID Connect Core 1.0 §3.1.3.7).
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// Levels of authentication of which one must have been reached; none: any.
    pub(super) acr: &'a [String],
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Since when the person must have proved who they are, in milliseconds since 1970.
    pub(super) fresh: Option<u64>,
}

/// Judges an ID token; gives whom it is about.
pub(super) fn judge(claims: &Claims, expected: &Expected<'_>) -> Result<String, Flaw> {
    source(claims, expected.issuer, expected.client_id, Required::Yes)?;
    let now = expected.now / 1000;
    times(claims, now, Required::Yes)?;
    let nonce = text(claims, "nonce").ok_or(Flaw::Claim("nonce"))?;
    if !same(nonce, expected.nonce) {
        return Err(Flaw::Claim("nonce"));
    }
    let acr = text(claims, "acr").unwrap_or_default();
    if !expected.acr.is_empty() && !expected.acr.iter().any(|wanted| wanted == acr) {
        return Err(Flaw::Claim("acr"));
    }
    if let Some(since) = expected.fresh
        && seconds(claims, "auth_time").is_none_or(|at| at.saturating_add(LEEWAY) < since / 1000)
    {
        return Err(Flaw::Claim("auth_time"));
    }
    subject(claims)
}

/// Judges a signed answer of the userinfo endpoint, which may leave out what it does not repeat (§5.3.2).
pub(super) fn judge_userinfo(claims: &Claims, issuer: &str, client_id: &str, now: u64) -> Result<(), Flaw> {
    source(claims, issuer, client_id, Required::No)?;
    times(claims, now / 1000, Required::No)
}

/// Whom claims are about: 1 to 255 characters of ASCII.
pub(super) fn subject(claims: &Claims) -> Result<String, Flaw> {
    let subject = text(claims, "sub").ok_or(Flaw::Claim("sub"))?;
    let right = (1..=255).contains(&subject.len()) && subject.bytes().all(|b| (0x20..0x7f).contains(&b));
    if right { Ok(subject.to_owned()) } else { Err(Flaw::Claim("sub")) }
}

/// Whether an ID token belongs to the access token that came with it, where it says so (§3.1.3.6).
pub(super) fn fits_access_token(claims: &Claims, algorithm: Algorithm, token: &str) -> Result<(), Flaw> {
    let Some(said) = claims.get("at_hash") else { return Ok(()) };
    let hash = match algorithm {
        Algorithm::Rs256 | Algorithm::Es256 => digest(&SHA256, token.as_bytes()),
        Algorithm::EdDsa => digest(&SHA512, token.as_bytes()),
    };
    let half = BASE64.encode(&hash.as_ref()[..hash.as_ref().len() / 2]);
    if said.as_str() == Some(half.as_str()) { Ok(()) } else { Err(Flaw::Claim("at_hash")) }
}

pub(super) fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    Yes,
    No,
}

/// Who says it, and to whom.
fn source(claims: &Claims, issuer: &str, client_id: &str, required: Required) -> Result<(), Flaw> {
    let asked = |name: &str| required == Required::Yes || claims.contains_key(name);
    if asked("iss") && text(claims, "iss") != Some(issuer) {
        return Err(Flaw::Claim("iss"));
    }
    let others = match claims.get("aud") {
        Some(Value::String(audience)) if audience == client_id => false,
        Some(Value::Array(list)) if list.iter().any(|audience| audience == client_id) => list.len() > 1,
        None if required == Required::No => false,
        _ => return Err(Flaw::Claim("aud")),
    };
    let azp = claims.get("azp");
    if azp.is_some_and(|party| party != client_id) || (others && azp.is_none()) {
        return Err(Flaw::Claim("azp"));
    }
    Ok(())
}

fn times(claims: &Claims, now: u64, required: Required) -> Result<(), Flaw> {
    let at = |name: &'static str| match (claims.get(name), seconds(claims, name)) {
        (_, Some(at)) => Ok(Some(at)),
        (None, None) if required == Required::No => Ok(None),
        _ => Err(Flaw::Claim(name)),
    };
    if at("exp")?.is_some_and(|end| now >= end.saturating_add(LEEWAY)) {
        return Err(Flaw::Claim("exp"));
    }
    let made = at("iat")?;
    if made.is_some_and(|made| made > now + LEEWAY || made.saturating_add(OLDEST + LEEWAY) < now) {
        return Err(Flaw::Claim("iat"));
    }
    if claims.contains_key("nbf") && seconds(claims, "nbf").is_none_or(|from| from > now + LEEWAY) {
        return Err(Flaw::Claim("nbf"));
    }
    Ok(())
}

/// A time in seconds since 1970; providers may write fractions.
fn seconds(claims: &Claims, name: &str) -> Option<u64> {
    let value = claims.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range, as was just asked"
    )]
    let whole = |seconds: f64| (0.0..1e15).contains(&seconds).then_some(seconds as u64);
    value.as_u64().filter(|seconds| *seconds < 1_000_000_000_000_000).or_else(|| whole(value.as_f64()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Algorithm, Claims, Expected, Flaw, fits_access_token, judge, judge_userinfo};

    const NOW: u64 = 1_780_000_000;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    /// A right ID token with some claims in place of others; null takes one away.
    fn with(changes: Value) -> Claims {
        let mut right = claims(json!({
            "iss": "https://i", "aud": "c", "sub": "s", "nonce": "n", "exp": NOW + 60, "iat": NOW, "acr": "eidas1",
            "auth_time": NOW,
        }));
        right.extend(claims(changes));
        right.retain(|_, value| !value.is_null());
        right
    }

    fn verdict(changes: Value) -> Result<String, Flaw> {
        let acr = ["eidas1".to_owned(), "eidas2".to_owned()];
        let (issuer, client_id, nonce) = ("https://i", "c", "n");
        let expected =
            Expected { issuer, client_id, nonce, acr: &acr, now: NOW * 1000, fresh: Some(NOW * 1000) };
        judge(&with(changes), &expected)
    }

    #[test]
    fn a_token_is_for_this_server_this_browser_and_now() {
        for right in [
            json!({}),
            json!({ "aud": ["c"] }),
            json!({ "aud": ["c", "d"], "azp": "c" }),
            json!({ "exp": NOW - 59 }),
            json!({ "iat": 1_780_000_000.5 }),
            json!({ "iat": NOW + 59, "nbf": NOW + 59 }),
            json!({ "auth_time": NOW - 60 }),
        ] {
            assert_eq!(verdict(right.clone()), Ok("s".to_owned()), "{right}");
        }
        for (claim, wrong) in [
            ("iss", vec![json!("https://i/"), json!("https://evil"), json!(null), json!(["https://i"])]),
            ("aud", vec![json!("d"), json!(["d"]), json!([]), json!(null), json!({ "c": 1 }), json!("C")]),
            ("azp", vec![json!("d"), json!(7)]),
            ("sub", vec![json!(""), json!(null), json!(1), json!("é"), json!("a\n"), json!("a".repeat(256))]),
            ("nonce", vec![json!("m"), json!(null), json!(""), json!(["n"])]),
            ("exp", vec![json!(NOW - 60), json!(0), json!(null), json!("soon"), json!(-1), json!(1e300)]),
            ("iat", vec![json!(NOW + 61), json!(NOW - 661), json!(null), json!("now")]),
            ("nbf", vec![json!(NOW + 61), json!("later")]),
            ("acr", vec![json!("eidas0"), json!(null)]),
            ("auth_time", vec![json!(NOW - 61), json!("yesterday"), json!(null)]),
        ] {
            for value in wrong {
                assert_eq!(verdict(json!({ claim: value })), Err(Flaw::Claim(claim)), "{claim} {value}");
            }
        }
        assert_eq!(verdict(json!({ "aud": ["c", "d"] })), Err(Flaw::Claim("azp")));
    }

    #[test]
    fn userinfo_may_be_short_but_not_wrong() {
        let judged = |value: Value| judge_userinfo(&claims(value), "https://i", "c", NOW * 1000);
        assert_eq!(judged(json!({ "sub": "s" })), Ok(()));
        assert_eq!(judged(json!({ "iss": "https://i", "aud": "c", "exp": NOW, "iat": NOW })), Ok(()));
        assert_eq!(judged(json!({ "iss": "https://e" })), Err(Flaw::Claim("iss")));
        assert_eq!(judged(json!({ "aud": "d" })), Err(Flaw::Claim("aud")));
        assert_eq!(judged(json!({ "exp": NOW - 61 })), Err(Flaw::Claim("exp")));
    }

    #[test]
    fn an_id_token_belongs_to_its_access_token() {
        // The example of OpenID Connect Core 1.0, appendix A.3.
        let said = claims(json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }));
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(fits_access_token(&said, Algorithm::Rs256, token), Ok(()));
        assert!(fits_access_token(&said, Algorithm::Rs256, "other").is_err());
        assert!(fits_access_token(&said, Algorithm::EdDsa, token).is_err());
        assert_eq!(fits_access_token(&Claims::new(), Algorithm::Rs256, token), Ok(()));
    }
}
