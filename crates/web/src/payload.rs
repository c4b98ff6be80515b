//! Bodies that no endpoint type knows: JSON, or a form as browsers and old clients send it.

use axum::{
    body::Body,
    extract::{FromRequest, Query, Request},
};
use http::{HeaderMap, Uri, header};
use serde::de::DeserializeOwned;

use crate::{Error, body_bytes};

/// The fields of a body: of a JSON object, or of a form if the request says that it is one. No body is an empty object.
#[derive(Clone, Copy, Debug)]
pub struct Payload<T>(pub T);

impl<T, S> FromRequest<S> for Payload<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let bytes = body_bytes(&parts, body).await?;
        Self::read(&parts.headers, &bytes)
    }
}

impl<T: DeserializeOwned> Payload<T> {
    /// Reads a body that was taken in already.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Error> {
        if is_form(headers) {
            let text = std::str::from_utf8(body).map_err(|_| Error::not_json("The body is not UTF-8"))?;
            let uri: Uri = format!("/?{text}").parse().map_err(|_| Error::invalid_param("Not a form"))?;
            let fields = Query::<T>::try_from_uri(&uri);
            return fields
                .map(|fields| Self(fields.0))
                .map_err(|error| Error::invalid_param(error.body_text()));
        }
        let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
        serde_json::from_slice(body).map(Self).map_err(|error| {
            if error.to_string().starts_with("missing field") {
                return Error::missing_param(error.to_string());
            }
            Error::unreadable_json(&error)
        })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        || kind.eq_ignore_ascii_case("application/x-form-www-urlencoded")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use serde::Deserialize;

    use super::Payload;

    #[derive(Debug, Deserialize)]
    struct Fields {
        a: String,
        #[serde(default)]
        b: Option<String>,
    }

    fn read(kind: &'static str, body: &str) -> Result<Fields, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let read = Payload::<Fields>::read(&headers, body.as_bytes());
        read.map(|payload| payload.0).map_err(|error| error.errcode().to_owned())
    }

    #[test]
    fn json_and_forms() {
        assert_eq!(read("application/json", r#"{"a":"x"}"#).unwrap().a, "x");
        assert_eq!(read("text/plain", r#"{"a":"x"}"#).unwrap().a, "x");
        let form = read("application/x-www-form-urlencoded; charset=UTF-8", "a=x%2By&b=%40").unwrap();
        assert_eq!((form.a.as_str(), form.b.as_deref()), ("x+y", Some("@")));
        assert_eq!(read("application/json", "{").unwrap_err(), "M_NOT_JSON");
        assert_eq!(read("application/json", r#"{"a":1}"#).unwrap_err(), "M_BAD_JSON");
        assert_eq!(read("application/json", "").unwrap_err(), "M_MISSING_PARAM");
        assert_eq!(read("application/x-www-form-urlencoded", "b=1").unwrap_err(), "M_INVALID_PARAM");
    }
}
