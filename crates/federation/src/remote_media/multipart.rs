//! `multipart/mixed` read as a stream, strictly and in bounded memory (RFC 2046, section 5.1).

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of the headers of one part at most.
const MAX_HEADERS: usize = 16 * 1024;
/// Bytes of what comes before the first part at most, and of a part that is passed over.
const MAX_SKIPPED: usize = 32 * 1024;

/// The boundary that a content type names; the type is `multipart/mixed` in any case of letters.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let mut fields = content_type.split(';').map(str::trim);
    if !fields.next()?.eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let value = fields.find_map(|field| {
        let (name, value) = field.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (!value.is_empty() && value.len() <= 70 && value.is_ascii()).then_some(value)
}

/// The parts of a body, one after the other.
pub(super) struct Parts<S> {
    body: S,
    /// Line end, two hyphens, the boundary.
    delimiter: Vec<u8>,
    held: BytesMut,
    ended: bool,
}

impl<S, E> Parts<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    pub(super) fn new(body: S, boundary: &str) -> Self {
        // The first delimiter may open the body: a line end before it makes it like all others.
        let held = BytesMut::from(&b"\r\n"[..]);
        Self { body, delimiter: format!("\r\n--{boundary}").into_bytes(), held, ended: false }
    }

    /// Reads more; `false` at the end.
    async fn more(&mut self) -> Result<bool, String> {
        match self.body.next().await {
            None => Ok(false),
            Some(Ok(piece)) => {
                self.held.extend_from_slice(&piece);
                Ok(true)
            }
            Some(Err(error)) => Err(error.to_string()),
        }
    }

    /// Goes to the next part and gives its headers. The part before must have been read to its end.
    pub(super) async fn next_part(&mut self) -> Result<HeaderMap, String> {
        self.skip().await?;
        while self.held.len() < 2 {
            if !self.more().await? {
                return Err("the answer ends before its parts do".to_owned());
            }
        }
        if self.held.starts_with(b"--") {
            return Err("the answer has fewer parts than it should".to_owned());
        }
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                let head = self.held.split_to(end + 4);
                self.ended = false;
                return headers(&head[..end]);
            }
            if self.held.len() > MAX_HEADERS || !self.more().await? {
                return Err("the headers of a part do not end".to_owned());
            }
        }
    }

    /// Passes over the rest of a part, or over what comes before the first.
    pub(super) async fn skip(&mut self) -> Result<(), String> {
        let mut skipped = 0;
        while let Some(piece) = self.piece().await? {
            skipped += piece.len();
            if skipped > MAX_SKIPPED {
                return Err("a part that should be short is not".to_owned());
            }
        }
        Ok(())
    }

    /// The next bytes of the part, `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if self.ended {
                return Ok(None);
            }
            if let Some(at) = find(&self.held, &self.delimiter) {
                let piece = self.held.split_to(at).freeze();
                let _ = self.held.split_to(self.delimiter.len());
                self.ended = true;
                return Ok(Some(piece).filter(|piece| !piece.is_empty()));
            }
            // What may be the beginning of a delimiter stays.
            let safe = self.held.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.held.split_to(safe).freeze()));
            }
            if !self.more().await? {
                return Err("the answer ends within a part".to_owned());
            }
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn headers(text: &[u8]) -> Result<HeaderMap, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the headers of a part are not text")?;
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or("a header of a part is malformed")?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn read(body: &str, size: usize) -> Result<(String, Vec<u8>), String> {
        let pieces: Vec<_> =
            body.as_bytes().chunks(size).map(|c| Ok::<_, Infallible>(Bytes::copy_from_slice(c))).collect();
        let mut parts = Parts::new(futures_util::stream::iter(pieces), "xyz");
        parts.next_part().await?;
        parts.skip().await?;
        let headers = parts.next_part().await?;
        let mut content = Vec::new();
        while let Some(piece) = parts.piece().await? {
            content.extend_from_slice(&piece);
        }
        let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        Ok((kind.unwrap_or_default(), content))
    }

    #[tokio::test]
    async fn parts_are_found_however_the_bytes_are_cut() {
        let body = "\r\n--xyz\r\nContent-Type: application/json\r\n\r\n{}\r\n--xyz\r\n\
                    content-TYPE: text/plain\r\n\r\nhello\r\n--xy not yet\r\n--xyz--\r\n";
        for size in 1..body.len() {
            let (kind, content) = read(body, size).await.unwrap();
            assert_eq!(
                (kind.as_str(), &content[..]),
                ("text/plain", &b"hello\r\n--xy not yet"[..]),
                "{size}"
            );
        }
        assert!(read(&body[2..], 7).await.is_ok(), "no line end before the first boundary");
    }

    #[tokio::test]
    async fn broken_bodies_are_errors() {
        let head = "--xyz\r\n\r\n{}\r\n--xyz";
        for body in ["", "hello", "--xyz--", &format!("{head}--"), &format!("{head}\r\n\r\nno end")] {
            assert!(read(body, 5).await.is_err(), "{body}");
        }
        let long = format!("--xyz\r\n\r\n{}\r\n--xyz\r\n\r\n\r\n--xyz--", " ".repeat(40_000));
        assert!(read(&long, 1000).await.is_err());
        let long = format!("--xyz\r\nA: {}", "b".repeat(20_000));
        assert!(read(&long, 1000).await.is_err());
    }

    #[test]
    fn boundaries_are_read_in_any_case_and_never_long() {
        assert_eq!(boundary("Multipart/Mixed; charset=x; BOUNDARY=\"abc\"").as_deref(), Some("abc"));
        assert_eq!(boundary("multipart/mixed"), None);
        assert_eq!(boundary("multipart/form-data; boundary=abc"), None);
        assert_eq!(boundary(&format!("multipart/mixed; boundary={}", "a".repeat(71))), None);
    }

    #[test]
    fn mutated_bodies_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        chappe_fuzz::Fuzz::of(env!("CARGO_MANIFEST_DIR"), "multipart").run(|bytes| {
            let Some(end) = find(bytes, b"\r\n\r\n") else { return "no content type".to_owned() };
            let (kind, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
            let Some(boundary) = boundary(&kind) else { return "no boundary".to_owned() };
            let pieces = body.chunks(7).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)));
            let mut parts = Parts::new(futures_util::stream::iter(pieces.collect::<Vec<_>>()), &boundary);
            let mut length = 0;
            let ended: Result<(), String> = runtime.block_on(async {
                for _ in 0..=body.len() {
                    parts.next_part().await?;
                    while let Some(piece) = parts.piece().await? {
                        length += piece.len();
                    }
                }
                Ok(())
            });
            assert!(length <= body.len());
            ended.expect_err("parts without end")
        });
    }
}
