//! Any JSON as servers sign it, read and written without recursion: peers nest it as deep as they like.

use crate::{
    Error,
    numbers::{as_python_writes, is_start, length_until, string_length},
};

/// Values in one text at most: each takes far more room here than as it is written.
const MOST_VALUES: usize = 1_000_000;

/// The canonical text of any JSON nested no deeper than `deepest`, but for its numbers, which are written as Python does.
/// Of a key that comes twice in an object the last counts, as in Python.
pub(crate) fn sorted(bytes: &[u8], deepest: usize) -> Result<String, Error> {
    let text = str::from_utf8(bytes).map_err(|error| Error::Malformed(error.to_string()))?;
    let mut reader = Reader { rest: text, deepest, tree: Tree::default(), open: Vec::new() };
    let root = reader.read()?;
    reader.tree.write(root)
}

/// Whether a text, if it is JSON, is nested deeper than so many levels.
pub(crate) fn is_deeper(bytes: &[u8], levels: usize) -> bool {
    let Ok(mut rest) = str::from_utf8(bytes) else { return false };
    let mut depth = 0_usize;
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'"' => string_length(rest),
            _ => 1 + length_until(rest.get(1..).unwrap_or_default(), |byte| b"\"[]{}".contains(&byte)),
        };
        match first {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// Part of the texts of a tree.
type Span = std::ops::Range<usize>;

/// A value; others are named by their places among the nodes.
enum Node {
    /// A string, as it is read.
    Text(Span),
    /// A number, `true`, `false` or `null`, as it is written.
    Plain(Span),
    List(Vec<usize>),
    /// In the order of the keys.
    Object(Vec<(Span, usize)>),
}

#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
    texts: String,
}

/// A list or an object whose end was not read yet.
enum Open {
    List(Vec<usize>),
    /// With the key whose value comes next.
    Object(Vec<(Span, usize)>, Span),
}

struct Reader<'a> {
    rest: &'a str,
    deepest: usize,
    tree: Tree,
    open: Vec<Open>,
}

fn malformed(what: &str) -> Error {
    Error::Malformed(what.to_owned())
}

impl Reader<'_> {
    /// Reads all that is there; gives the place of the root.
    fn read(&mut self) -> Result<usize, Error> {
        loop {
            let Some(node) = self.begin()? else { continue };
            if let Some(root) = self.end(node)? {
                self.skip();
                return if self.rest.is_empty() { Ok(root) } else { Err(malformed("trailing characters")) };
            }
        }
    }

    /// Reads a value, but only the opening of one that holds others.
    fn begin(&mut self) -> Result<Option<Node>, Error> {
        self.skip();
        match self.rest.bytes().next() {
            Some(b'[') => self.begin_with(Open::List(Vec::new()), "]"),
            Some(b'{') => self.begin_with(Open::Object(Vec::new(), 0..0), "}"),
            Some(b'"') => Ok(Some(Node::Text(self.string()?))),
            Some(first) if is_start(first) => {
                let end = length_until(self.rest, |byte| !is_start(byte) && !b"+.eE".contains(&byte));
                let number = as_python_writes(self.take(end))?;
                Ok(Some(Node::Plain(self.tree.keep(&number))))
            }
            _ => {
                let words = ["true", "false", "null"];
                let word = words.into_iter().find(|word| self.rest.starts_with(word));
                let word = word.ok_or_else(|| malformed("expected a value"))?;
                self.take(word.len());
                Ok(Some(Node::Plain(self.tree.keep(word))))
            }
        }
    }

    fn begin_with(&mut self, open: Open, end: &str) -> Result<Option<Node>, Error> {
        if self.open.len() == self.deepest {
            return Err(malformed("nested too deep"));
        }
        self.take(1);
        let is_empty = self.takes(end);
        match open {
            Open::List(items) if is_empty => return Ok(Some(Node::List(items))),
            Open::Object(members, _) if is_empty => return Ok(Some(Node::Object(members))),
            Open::List(_) => self.open.push(open),
            Open::Object(members, _) => {
                let key = self.key()?;
                self.open.push(Open::Object(members, key));
            }
        }
        Ok(None)
    }

    /// Puts a value where it belongs, and reads what ends with it; gives the place of the root if that has ended.
    fn end(&mut self, mut node: Node) -> Result<Option<usize>, Error> {
        loop {
            if self.tree.nodes.len() == MOST_VALUES {
                return Err(malformed("too many values"));
            }
            self.tree.nodes.push(node);
            let place = self.tree.nodes.len() - 1;
            match self.open.pop() {
                None => return Ok(Some(place)),
                Some(Open::List(mut items)) => {
                    items.push(place);
                    if self.takes(",") {
                        self.open.push(Open::List(items));
                        return Ok(None);
                    }
                    self.expect("]")?;
                    node = Node::List(items);
                }
                Some(Open::Object(mut members, key)) => {
                    members.push((key, place));
                    if self.takes(",") {
                        let key = self.key()?;
                        self.open.push(Open::Object(members, key));
                        return Ok(None);
                    }
                    self.expect("}")?;
                    node = Node::Object(self.tree.in_order(members));
                }
            }
        }
    }

    fn key(&mut self) -> Result<Span, Error> {
        self.skip();
        if !self.rest.starts_with('"') {
            return Err(malformed("expected a key"));
        }
        let key = self.string()?;
        self.expect(":")?;
        Ok(key)
    }

    fn string(&mut self) -> Result<Span, Error> {
        let written = self.take(string_length(self.rest));
        let is_plain = |byte: u8| byte != b'\\' && byte >= b' ';
        match written.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) if text.bytes().all(is_plain) => Ok(self.tree.keep(text)),
            _ => {
                let text: String =
                    serde_json::from_str(written).map_err(|error| Error::Malformed(error.to_string()))?;
                Ok(self.tree.keep(&text))
            }
        }
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn takes(&mut self, mark: &str) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, mark: &str) -> Result<(), Error> {
        if self.takes(mark) { Ok(()) } else { Err(Error::Malformed(format!("expected {mark}"))) }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

impl Tree {
    fn keep(&mut self, text: &str) -> Span {
        let from = self.texts.len();
        self.texts.push_str(text);
        from..self.texts.len()
    }

    fn text(&self, span: &Span) -> &str {
        self.texts.get(span.clone()).unwrap_or_default()
    }

    fn in_order(&self, mut members: Vec<(Span, usize)>) -> Vec<(Span, usize)> {
        members.sort_by(|(a, _), (b, _)| self.text(a).cmp(self.text(b)));
        members.reverse();
        members.dedup_by(|(a, _), (b, _)| self.text(a) == self.text(b));
        members.reverse();
        members
    }

    fn write(&self, root: usize) -> Result<String, Error> {
        let mut written = String::with_capacity(self.texts.len());
        let mut open: Vec<(&Node, usize)> = Vec::new();
        let mut next = self.nodes.get(root);
        loop {
            match next.take() {
                Some(Node::Text(text)) => written.push_str(&quoted(self.text(text))?),
                Some(Node::Plain(text)) => written.push_str(self.text(text)),
                Some(node) => {
                    written.push(if matches!(node, Node::List(_)) { '[' } else { '{' });
                    open.push((node, 0));
                }
                None => {}
            }
            let Some((node, at)) = open.last_mut() else { return Ok(written) };
            let (child, end) = match *node {
                Node::List(items) => (items.get(*at).map(|item| (None, *item)), ']'),
                Node::Object(members) => (members.get(*at).map(|(key, item)| (Some(key), *item)), '}'),
                Node::Text(_) | Node::Plain(_) => (None, ' '),
            };
            let Some((key, item)) = child else {
                written.push(end);
                open.pop();
                continue;
            };
            if *at > 0 {
                written.push(',');
            }
            *at += 1;
            if let Some(key) = key {
                written.push_str(&quoted(self.text(key))?);
                written.push(':');
            }
            next = self.nodes.get(item);
        }
    }
}

fn quoted(text: &str) -> Result<String, Error> {
    serde_json::to_string(text).map_err(|error| Error::Malformed(error.to_string()))
}
