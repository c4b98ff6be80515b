//! What surrounds the pages for people. All of this server's look the same, those of crate `oauth` included.

use crate::{
    Language,
    texts::{code, escaped},
};

/// The style sheet of every page.
pub const PAGE_STYLE: &str = "\
:root{color-scheme:light dark;--line:#8a8a99;--strong:#000091}\
@media(prefers-color-scheme:dark){:root{--strong:#8585f6}}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0}\
main{max-width:34rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
label{display:block;margin:1rem 0}\
label.check{display:flex;gap:.5rem;align-items:baseline}\
input:not([type=checkbox]){display:block;box-sizing:border-box;width:100%;padding:.5rem;font:inherit;border:1px solid var(--line)}\
button{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem .5rem 0;border:1px solid var(--strong);background:none;color:inherit;cursor:pointer}\
a.button{display:inline-block;padding:.5rem 1rem;border:1px solid var(--strong);color:inherit;text-decoration:none}\
button.main{background:var(--strong);color:Canvas}\
.notice{border-left:.25rem solid var(--strong);padding:.25rem 1rem}\
.code{font:1.5rem monospace;letter-spacing:.1em}\
ul.devices{padding:0;list-style:none}ul.devices li{border-top:1px solid var(--line);padding:.5rem 0}";

/// A whole page, without scripts or anything loaded from elsewhere. Service and title are any text, the body is HTML.
pub(crate) fn framed(language: Language, service: &str, title: &str, body: &str) -> String {
    let (language, service, title) = (code(language), escaped(service), escaped(title));
    format!(
        "<!DOCTYPE html><html lang=\"{language}\"><head><meta charset=\"utf-8\"><title>{title} – {service}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{PAGE_STYLE}</style></head>\
         <body><main><p>{service}</p><h1>{title}</h1>{body}</main></body></html>"
    )
}
