//! What a small policy server looks at: who speaks, and in which words and files. The same event, the same answer.

use serde_json::{Map, Value};

use crate::{
    Pdu,
    glob::{Glob, folded},
};

/// How deep files are looked for in a content.
const DEEPEST: usize = 8;

/// Compiled rules.
#[derive(Clone, Debug, Default)]
pub struct ContentRules {
    users: Vec<Glob>,
    servers: Vec<Glob>,
    words: Vec<String>,
    kinds: Vec<String>,
    files: Vec<Glob>,
}

/// The rules as an operator writes them.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Users that nothing is signed for, `*` and `?` as in patterns.
    pub users: &'a [String],
    /// Servers whose users nothing is signed for, likewise.
    pub servers: &'a [String],
    /// What no text may contain, in small or capital letters.
    pub words: &'a [String],
    /// Values of `msgtype`.
    pub kinds: &'a [String],
    /// MIME types of files, `*` and `?` as in patterns.
    pub files: &'a [String],
}

impl ContentRules {
    /// Compiles rules. Empty entries count for nothing.
    pub fn new(written: Written<'_>) -> Self {
        let given = |list: &[String]| -> Vec<String> {
            list.iter().filter(|entry| !entry.is_empty()).cloned().collect()
        };
        let globs = |list: &[String]| given(list).iter().map(|pattern| Glob::new(pattern)).collect();
        Self {
            users: globs(written.users),
            servers: globs(written.servers),
            words: given(written.words).iter().map(|word| folded(word)).collect(),
            kinds: given(written.kinds),
            files: globs(written.files),
        }
    }

    /// Why an event is refused, for whoever sent it; `None` if nothing speaks against it.
    pub fn objection(&self, pdu: &Pdu) -> Option<&'static str> {
        let any = |globs: &[Glob], text: &str| globs.iter().any(|glob| glob.matches(&folded(text)));
        let sender = pdu.sender();
        if any(&self.users, sender.as_str()) || any(&self.servers, sender.server_name().host()) {
            return Some("You may not send anything to this room");
        }
        let content: Map<String, Value> = pdu.content_as().unwrap_or_default();
        let content = Value::Object(content);
        let mut objection = None;
        each_text(&content, "", DEEPEST, &mut |name, text| {
            if name == "msgtype" && self.kinds.iter().any(|kind| kind == text) {
                objection = Some("This room does not take messages of this kind");
            } else if name == "mimetype" && any(&self.files, text) {
                objection = Some("This room does not take files of this kind");
            } else if !self.words.is_empty() && self.words.iter().any(|word| folded(text).contains(word)) {
                objection = Some("This room does not take messages with these words");
            }
        });
        objection
    }
}

/// Calls `each` with every text of a value and the name of its field.
fn each_text(value: &Value, name: &str, deeper: usize, each: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => each(name, text),
        Value::Array(values) if deeper > 0 => {
            for value in values {
                each_text(value, name, deeper - 1, each);
            }
        }
        Value::Object(fields) if deeper > 0 => {
            for (name, value) in fields {
                each_text(value, name, deeper - 1, each);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::{Value, json};

    use super::{ContentRules, Written};
    use crate::laws::Room;

    #[test]
    fn users_servers_words_and_files_are_refused() {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        let rules = ContentRules::new(Written {
            users: &list(&["@spam*:a.example", ""]),
            servers: &list(&["*.evil.example"]),
            words: &list(&["Casino", ""]),
            kinds: &list(&["m.video"]),
            files: &list(&["image/*"]),
        });
        let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
        let mut refuses = |sender: &str, content: Value| {
            let pdu = room.send(sender, "m.room.message", None, &content);
            rules.objection(&pdu).is_some()
        };
        let hello = json!({ "msgtype": "m.text", "body": "hello" });
        assert!(!refuses("@a:a.example", hello.clone()));
        assert!(
            refuses("@spammer:a.example", hello.clone()) && !refuses("@spammer:b.example", hello.clone())
        );
        assert!(refuses("@a:x.evil.example", hello.clone()) && !refuses("@a:evil.example", hello));
        assert!(refuses("@a:a.example", json!({ "body": "the best CASINO in town" })));
        let edit =
            json!({ "body": "* x", "m.new_content": { "body": "x", "formatted_body": "<b>casino</b>" } });
        assert!(refuses("@a:a.example", edit));
        assert!(refuses("@a:a.example", json!({ "msgtype": "m.video", "body": "v" })));
        let picture = |kind: &str| json!({ "msgtype": "m.image", "body": "p", "info": { "mimetype": kind } });
        assert!(
            refuses("@a:a.example", picture("image/png")) && !refuses("@a:a.example", picture("text/plain"))
        );
        let nothing = list(&[]);
        let written =
            Written { users: &nothing, servers: &nothing, words: &nothing, kinds: &nothing, files: &nothing };
        let pdu = room.say("@a:a.example", "casino");
        assert_eq!(ContentRules::new(written).objection(&pdu), None);
    }
}
