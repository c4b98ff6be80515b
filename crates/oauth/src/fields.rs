//! Parameters in a query or a form: each once, none empty (RFC 6749, section 3.1).

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use chappe_web::{BodyLimit, body_bytes};
use http::header;
use url::form_urlencoded;

use crate::error::{Error, Result};

/// Bytes of a form.
const LONGEST_FORM: usize = 32 << 10;

/// Parameters by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads a query or a form. A parameter that is there twice is refused, one without a value is left out.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Error::request("a parameter is there twice"));
            }
        }
        fields.retain(|_, value| !value.is_empty());
        Ok(Self(fields))
    }

    /// A parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be there.
    pub(crate) fn need(&self, name: &'static str) -> Result<&str> {
        self.get(name).ok_or_else(|| Error::InvalidRequest(format!("{name} is missing").into()))
    }

    /// Adds a parameter, or changes it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// All of them in the form of a query, those named aside.
    pub(crate) fn query(&self, aside: &[&str]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.0.iter().filter(|(name, _)| !aside.contains(&name.as_str())));
        query.finish()
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Error::request("the body must be application/x-www-form-urlencoded"));
        }
        parts.extensions.insert(BodyLimit(LONGEST_FORM));
        let bytes = body_bytes(&parts, body).await.map_err(Error::Body)?;
        Self::parse(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;

    #[test]
    fn each_parameter_is_there_once_and_with_a_value() {
        let fields = Fields::parse(b"a=x%2By+z&b=&c").unwrap();
        assert_eq!((fields.get("a"), fields.get("b"), fields.get("c")), (Some("x+y z"), None, None));
        assert!(fields.need("b").is_err());
        for twice in [&b"a=1&a=1"[..], b"a=1&%61=2", b"a=1&a="] {
            assert_eq!(Fields::parse(twice).unwrap_err().code(), "invalid_request");
        }
        let fields = Fields::parse(b"csrf=1&state=%0D%0Aa%26b%3Dc&x=%C3%A9").unwrap();
        assert_eq!(fields.query(&["csrf"]), "state=%0D%0Aa%26b%3Dc&x=%C3%A9");
    }
}
