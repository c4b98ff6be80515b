//! What an HTML page says of itself: OpenGraph first, then what is meant for Twitter, then title, description and text.
//!
//! The page is read as a flat list of tags and texts and never becomes a tree, so nesting costs nothing.

use std::collections::{BTreeMap, HashMap};

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use serde_json::Value;
use url::Url;

/// Names as in OpenGraph → texts and numbers.
pub type Properties = BTreeMap<String, Value>;

/// Characters of a title and other short texts.
const SHORT: usize = 300;
/// Characters of a description.
const LONG: usize = 1_000;
/// Characters of running text that make a description.
const ENOUGH: usize = 200;
/// Bytes of one text that are looked at.
const TEXT: usize = 16 << 10;

/// A page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// What it says of itself, without its picture.
    pub(super) properties: Properties,
    /// The link to its picture, as it stands there.
    pub(super) picture: Option<String>,
    /// What is to be seen on the picture.
    pub(super) picture_says: Option<String>,
    /// What links are relative to, if not to the page.
    pub(super) base: Option<String>,
}

/// Reads a page.
pub(super) fn read(html: &str) -> Page {
    let mut emitter = DefaultEmitter::default();
    // What stands in scripts and styles is no text and no tag.
    emitter.naively_switch_states(true);
    let mut reader = Reader::default();
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Token::StartTag(tag) => reader.opens(&tag),
            Token::EndTag(tag) => reader.closes(&tag.name),
            Token::String(text) => reader.says(&text),
            _ => {}
        }
    }
    reader.page()
}

/// Names of `<meta>` that are of use, in lower case; what stands first counts.
const META: [&str; 19] = [
    "og:title",
    "og:description",
    "og:site_name",
    "og:type",
    "og:url",
    "og:locale",
    "og:image",
    "og:image:url",
    "og:image:secure_url",
    "og:image:alt",
    "twitter:title",
    "twitter:description",
    "twitter:image",
    "twitter:image:src",
    "twitter:image:alt",
    "description",
    "dc.title",
    "dc.description",
    "image",
];

/// What has no text of the page in it.
const SILENT: [&[u8]; 12] = [
    b"nav",
    b"header",
    b"footer",
    b"aside",
    b"form",
    b"button",
    b"select",
    b"svg",
    b"template",
    b"noscript",
    b"script",
    b"style",
];

/// What ends a paragraph.
const BLOCKS: [&[u8]; 14] = [
    b"p", b"div", b"section", b"article", b"main", b"ul", b"ol", b"table", b"pre", b"h1", b"h2", b"h3",
    b"h4", b"body",
];

/// Where texts go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Title,
    Heading,
    Paragraph,
}

#[derive(Default)]
struct Reader {
    said: HashMap<&'static str, String>,
    linked_picture: Option<String>,
    base: Option<String>,
    place: Option<Place>,
    silent: usize,
    title: Option<String>,
    heading: Option<String>,
    text: String,
}

impl Reader {
    fn opens(&mut self, tag: &StartTag<()>) {
        let name = &**tag.name;
        match name {
            b"meta" => self.meta(tag),
            b"link" if is(tag, b"rel", "image_src") => {
                self.linked_picture = self.linked_picture.take().or_else(|| attribute(tag, b"href"));
            }
            b"base" => self.base = self.base.take().or_else(|| attribute(tag, b"href")),
            b"title" if self.title.is_none() && self.silent == 0 => self.goes_to(Place::Title),
            b"h1" if self.heading.is_none() && self.silent == 0 => self.goes_to(Place::Heading),
            b"p" => self.goes_to(Place::Paragraph),
            _ if SILENT.contains(&name) && !tag.self_closing => self.silent += 1,
            _ if BLOCKS.contains(&name) => self.place = None,
            _ => {}
        }
    }

    fn closes(&mut self, name: &[u8]) {
        if SILENT.contains(&name) {
            self.silent = self.silent.saturating_sub(1);
        } else if name == b"title" || BLOCKS.contains(&name) {
            self.place = None;
        }
    }

    fn goes_to(&mut self, place: Place) {
        self.place = Some(place);
        match place {
            Place::Title => self.title = Some(String::new()),
            Place::Heading => self.heading = Some(String::new()),
            Place::Paragraph => self.text.push(' '),
        }
    }

    fn says(&mut self, text: &[u8]) {
        if self.silent > 0 {
            return;
        }
        let into = match self.place {
            Some(Place::Title) => self.title.as_mut(),
            Some(Place::Heading) => self.heading.as_mut(),
            Some(Place::Paragraph) if self.text.len() < TEXT => Some(&mut self.text),
            _ => None,
        };
        if let Some(into) = into.filter(|into| into.len() < TEXT) {
            into.push_str(&String::from_utf8_lossy(&text[..text.len().min(TEXT)]));
        }
    }

    /// `property` is what OpenGraph writes, `name` what everybody else does; many mix them up.
    fn meta(&mut self, tag: &StartTag<()>) {
        let Some(content) = attribute(tag, b"content").filter(|content| !content.trim().is_empty()) else {
            return;
        };
        for key in [&b"property"[..], b"name", b"itemprop"] {
            let name = attribute(tag, key).map(|name| name.trim().to_ascii_lowercase());
            let known = META.iter().find(|known| name.as_deref() == Some(**known));
            if let Some(known) = known {
                self.said.entry(known).or_insert_with(|| content.clone());
            }
        }
    }

    fn page(mut self) -> Page {
        let mut properties = Properties::new();
        let mut put = |name: &str, text: Option<String>| {
            if let Some(text) = text {
                properties.insert(name.to_owned(), text.into());
            }
        };
        let title = self.first(&["og:title", "twitter:title"]).or(self.title.take());
        let title = title.and_then(|title| clean(&title, SHORT));
        let others = || self.first(&["dc.title"]).or_else(|| self.heading.clone());
        put("og:title", title.or_else(|| clean(&others()?, SHORT)));
        let described =
            self.first(&["og:description", "twitter:description", "description", "dc.description"]);
        let described = described.and_then(|text| clean(&text, LONG));
        put("og:description", described.or_else(|| clean(&self.text, ENOUGH)));
        for name in ["og:site_name", "og:type", "og:locale"] {
            put(name, self.first(&[name]).and_then(|text| clean(&text, SHORT)));
        }
        put("og:url", self.first(&["og:url"]).filter(|url| is_web(url)));
        let pictures = [
            "og:image:secure_url",
            "og:image",
            "og:image:url",
            "twitter:image",
            "twitter:image:src",
            "image",
        ];
        Page {
            properties,
            picture: self.first(&pictures).or(self.linked_picture.take()),
            picture_says: self
                .first(&["og:image:alt", "twitter:image:alt"])
                .and_then(|text| clean(&text, SHORT)),
            base: self.base,
        }
    }

    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.said.get(name)).cloned()
    }
}

fn attribute(tag: &StartTag<()>, name: &[u8]) -> Option<String> {
    let value = tag.attributes.get(name)?;
    Some(String::from_utf8_lossy(&value[..value.len().min(TEXT)]).into_owned())
}

fn is(tag: &StartTag<()>, name: &[u8], value: &str) -> bool {
    attribute(tag, name).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
}

fn is_web(url: &str) -> bool {
    let short = url.len() <= 2_048;
    short && Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// One line of at most so many characters, without what makes text run backwards; `None` if nothing is left.
fn clean(text: &str, longest: usize) -> Option<String> {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let space = usize::from(length > 0);
        let word: String = word.chars().filter(|c| !turns(*c)).take(longest + 1).collect();
        let count = word.chars().count();
        if length + space + count > longest {
            let left = longest.saturating_sub(length + space + 1);
            line.extend((space > 0 && left > 0).then_some(' '));
            line.extend(word.chars().take(left));
            line.push('…');
            return Some(line);
        }
        line.extend((space > 0 && count > 0).then_some(' '));
        line.push_str(&word);
        length += space + count;
    }
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::{Page, clean, read};

    fn said(page: &Page, name: &str) -> String {
        page.properties.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    }

    #[test]
    fn open_graph_comes_before_all_else() {
        let page = read(
            r#"<!doctype html><html><head><title>Titre</title>
            <meta name="description" content="Description">
            <meta name=twitter:title content=Oiseau>
            <META PROPERTY="OG:Title" CONTENT="L&#39;État &amp; vous">
            <meta property="og:title" content="second">
            <meta property="og:image" content="/a.png"><meta property="og:image:alt" content="Un pont">
            <meta property="og:type" content="article"><meta property="og:site_name" content="Site">
            <meta property="og:url" content="javascript:alert(1)">
            <meta property="og:video" content="https://elsewhere.example/v">
            <base href="/base/"></head><body><p>Texte</p></body></html>"#,
        );
        assert_eq!(said(&page, "og:title"), "L'État & vous");
        assert_eq!(said(&page, "og:description"), "Description");
        assert_eq!((said(&page, "og:type"), said(&page, "og:site_name")), ("article".into(), "Site".into()));
        assert_eq!(page.properties.len(), 4, "{page:?}");
        assert_eq!(page.picture.as_deref(), Some("/a.png"));
        assert_eq!(page.picture_says.as_deref(), Some("Un pont"));
        assert_eq!(page.base.as_deref(), Some("/base/"));
    }

    #[test]
    fn twitter_then_title_then_text() {
        let page = read(
            "<meta name=twitter:description content=D><meta property=twitter:image content=i.png><title>A\n B</title>",
        );
        assert_eq!((said(&page, "og:title"), said(&page, "og:description")), ("A B".into(), "D".into()));
        assert_eq!(page.picture.as_deref(), Some("i.png"));
        let page = read(
            "<body><header><p>menu</p></header><script>var p = '<p>no</p><title>no</title>';</script>\
             <style>p { color: red }</style><nav><h1>no</h1></nav><h1>Grand <b>titre</b></h1><div>no</div>\
             <p>Premier <i>alinéa</i>.<p>Second.<div>no</div><svg><title>no</title></svg><footer><p>no</p></footer>\
             <link rel=IMAGE_SRC href=l.png>",
        );
        assert_eq!(said(&page, "og:title"), "Grand titre");
        assert_eq!(said(&page, "og:description"), "Premier alinéa. Second.");
        assert_eq!(page.picture.as_deref(), Some("l.png"));
        assert_eq!(read(""), Page::default());
        assert_eq!(read("<meta property=og:title content='  '><meta content=x><meta>"), Page::default());
    }

    #[test]
    fn texts_are_one_short_line() {
        assert_eq!(clean(" a\n\tb\0c\u{202e} ", 10).as_deref(), Some("a b c"));
        assert_eq!(clean("aaaa bbbb", 6).as_deref(), Some("aaaa…"));
        assert_eq!(clean("aaaa bbbb", 7).as_deref(), Some("aaaa b…"));
        assert_eq!(clean("aaaa bbbb", 9).as_deref(), Some("aaaa bbbb"));
        assert_eq!(clean(&"é".repeat(50), 10), Some("é".repeat(9) + "…"));
        assert_eq!(clean(" \n\u{202e}", 10), None);
        let page = read(&format!("<title>{}</title><p>{}", "t".repeat(100_000), "mot ".repeat(100_000)));
        assert_eq!(said(&page, "og:title").chars().count(), 300);
        assert!(said(&page, "og:description").chars().count() <= 200);
    }

    #[test]
    fn hostile_pages_cost_no_more_than_others() {
        let title = "<title>T</title>";
        let many_attributes = (0..100_000).fold(String::new(), |text, n| text + " a" + &n.to_string());
        for page in [
            format!("{}{title}{}", "<div>".repeat(10_000), "</div>".repeat(10_000)),
            format!("{}{title}", "<b><i><p><a><table>".repeat(10_000)),
            format!("{}{title}", "</nav></script></title></p>".repeat(10_000)),
            format!("<div{many_attributes}>{title}"),
            format!("{title}<div {}", "a ".repeat(200_000)),
            format!("{title}<!--{}", "<!--".repeat(200_000)),
            format!("{title}<script>{}", "<!--<script>".repeat(50_000)),
            format!("{title}{}", "&".repeat(500_000)),
            format!("{title}{}", "&#x".repeat(100_000)),
            format!("{title}{}", "<".repeat(500_000)),
            format!("{title}<![CDATA[{}", "]]".repeat(100_000)),
            format!("{title}{}", "\0".repeat(500_000)),
        ] {
            let page = read(&page);
            assert_eq!(said(&page, "og:title"), "T");
        }
    }
}
