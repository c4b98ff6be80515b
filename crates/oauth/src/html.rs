//! HTML in the making: what comes from outside is escaped, because only text of ours can be written as it is.

use chappe_identity::Language;

use crate::api::BASE;

/// A page's body, or a part of it.
#[derive(Debug)]
pub(crate) struct Html {
    language: Language,
    text: String,
}

impl Html {
    pub(crate) fn new(language: Language) -> Self {
        Self { language, text: String::new() }
    }

    /// Markup, as written in this source.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.text.push_str(markup);
        self
    }

    /// Markup in the page's language.
    pub(crate) fn say(&mut self, french: &'static str, english: &'static str) -> &mut Self {
        self.raw(say(self.language, french, english))
    }

    /// Any text, inside an element or a quoted attribute.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\'' => self.text.push_str("&#39;"),
                c => self.text.push(c),
            }
        }
        self
    }

    /// A paragraph about something that has just happened.
    pub(crate) fn notice(&mut self, sentence: &'static str) -> &mut Self {
        self.raw("<p class=\"notice\" role=\"status\">").raw(sentence).raw("</p>")
    }

    /// A field that is sent and not shown.
    pub(crate) fn hidden(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw("<input type=\"hidden\" name=\"").raw(name).raw("\" value=\"").text(value).raw("\">")
    }

    /// The begin of a form that is posted to a page of ours.
    pub(crate) fn form(&mut self, path: &'static str, proof: &str) -> &mut Self {
        self.raw("<form method=\"post\" action=\"").raw(BASE).raw(path).raw("\">").hidden("csrf", proof)
    }

    /// A field for a password.
    pub(crate) fn password(&mut self, name: &'static str, autocomplete: &'static str) -> &mut Self {
        self.raw("<input type=\"password\" maxlength=\"512\" required name=\"").raw(name);
        self.raw("\" autocomplete=\"").raw(autocomplete).raw("\">")
    }

    /// The whole document.
    pub(crate) fn document(&self, service: &str, title: &'static str) -> String {
        let mut page = Self::new(self.language);
        page.raw("<!DOCTYPE html><html lang=\"")
            .say("fr", "en")
            .raw("\"><head><meta charset=\"utf-8\"><title>");
        page.raw(title).raw(" – ").text(service);
        page.raw("</title><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        page.raw("<link rel=\"stylesheet\" href=\"").raw(BASE).raw("/style.css\"></head><body><main><p>");
        page.text(service).raw("</p><h1>").raw(title).raw("</h1>");
        page.text.push_str(&self.text);
        page.raw("</main></body></html>");
        page.text
    }
}

/// A sentence in a language.
pub(crate) fn say(language: Language, french: &'static str, english: &'static str) -> &'static str {
    match language {
        Language::Fr => french,
        Language::En => english,
    }
}

#[cfg(test)]
mod tests {
    use chappe_identity::Language;

    use super::Html;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let mut html = Html::new(Language::Fr);
        html.hidden("x", "\"><script>alert('&')</script>").text("<b>");
        let page = html.document("<i>S</i>", "T");
        assert!(!page.contains("<script>") && !page.contains("<b>") && !page.contains("<i>"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)"), "{page}");
    }
}
