//! One input out of others.

use serde_json::{Value, json};

/// Longest input.
const LONGEST: usize = 200_000;

/// What parsers stumble over.
const WORDS: [&str; 44] = [
    "0",
    "-0",
    "-1",
    "1.0",
    "1e3",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740992",
    "9223372036854775808",
    "NaN",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\\ud800",
    "\\u0000",
    "\\\"",
    "\u{feff}",
    "\u{0}",
    "\u{202e}",
    "é",
    "@",
    ":",
    "!",
    "$",
    "#",
    "/",
    "..",
    "%2f",
    "%00",
    "*",
    "?",
    "[::1]",
    "127.0.0.1",
    ":0",
    ":99999",
    "xn--a",
    ".",
    "=",
    ",",
    "\r\n",
    "--",
    "\"",
];

/// Makes inputs. The same seed makes the same ones.
pub(crate) struct Mutator(u64);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Xorshift: anything is random enough here.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or_default() % bound.max(1)
    }

    /// An input of the pool with one to four changes.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            let parsed = if self.below(2) == 0 { serde_json::from_slice(&input).ok() } else { None };
            input = match parsed {
                Some(value) => self.restructure(value, pool),
                None => self.scramble(input, pool),
            };
        }
        input.truncate(LONGEST);
        input
    }

    fn scramble(&mut self, mut input: Vec<u8>, pool: &[Vec<u8>]) -> Vec<u8> {
        let (one, other) = (self.below(input.len() + 1), self.below(input.len() + 1));
        let (from, to) = (one.min(other), one.max(other));
        match self.below(7) {
            0 if from < input.len() => input[from] ^= 1 << self.below(8),
            1 => drop(input.drain(from..to.min(from + 8))),
            2 => drop(input.drain(from..to)),
            3 => {
                let piece = input[from..to].to_vec();
                drop(input.splice(from..from, piece));
            }
            4 => {
                let second = &pool[self.below(pool.len())];
                let cut = self.below(second.len() + 1);
                input.truncate(from);
                input.extend_from_slice(&second[cut..]);
            }
            5 => {
                let times = [1, 1, 1, 255, 256, 10_000][self.below(6)];
                let word = WORDS[self.below(WORDS.len())].repeat(times);
                drop(input.splice(from..from, word.bytes()));
            }
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                drop(input.splice(from..to.min(from + word.len()), word.bytes()));
            }
        }
        input
    }

    /// Changes one place in a JSON value; now and then a key is there twice afterwards.
    fn restructure(&mut self, mut value: Value, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut places = Vec::new();
        paths(&value, &mut String::new(), &mut places);
        let path = places[self.below(places.len())].clone();
        let instead = self.value(pool);
        let Some(place) = value.pointer_mut(&path) else { return value.to_string().into_bytes() };
        match (self.below(6), place) {
            (0, Value::Object(fields)) if !fields.is_empty() => {
                let key = fields.keys().nth(self.below(fields.len())).cloned().unwrap_or_default();
                fields.remove(&key);
            }
            (1, Value::Object(fields)) => {
                fields.insert(WORDS[self.below(WORDS.len())].to_owned(), instead);
            }
            (0 | 1, Value::Array(list)) if !list.is_empty() => {
                let copy = list[self.below(list.len())].clone();
                let times = [1, 20, 60][self.below(3)];
                list.extend(std::iter::repeat_n(copy, times));
            }
            (2, place) => *place = json!([place.take()]),
            (3, Value::String(text)) => {
                let at =
                    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).nth(self.below(text.len() + 1));
                text.insert_str(at.unwrap_or_default(), WORDS[self.below(WORDS.len())]);
            }
            (_, place) => *place = instead,
        }
        let text = value.to_string();
        if self.below(10) == 0 && text.starts_with('{') && text.len() > 2 {
            return format!("{{{},{}", &text[1..text.len() - 1], &text[1..]).into_bytes();
        }
        text.into_bytes()
    }

    fn value(&mut self, pool: &[Vec<u8>]) -> Value {
        match self.below(8) {
            0 => Value::Null,
            1 => json!(i64::MIN >> self.below(64)),
            2 => json!(u64::MAX >> self.below(64)),
            3 => json!(0.5),
            4 => json!("x".repeat([0, 254, 255, 256, 65_536][self.below(5)])),
            5 => (0..self.below(130)).fold(json!({}), |inner, _| json!({ "a": inner })),
            6 => json!(WORDS[self.below(WORDS.len())]),
            _ => {
                let other =
                    serde_json::from_slice(&pool[self.below(pool.len())]).unwrap_or(Value::Bool(true));
                let mut places = Vec::new();
                paths(&other, &mut String::new(), &mut places);
                other.pointer(&places[self.below(places.len())]).cloned().unwrap_or_default()
            }
        }
    }
}

/// JSON pointers of everything in a value, itself included.
fn paths(value: &Value, at: &mut String, found: &mut Vec<String>) {
    found.push(at.clone());
    let length = at.len();
    let mut enter = |key: &str, inner: &Value| {
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        paths(inner, at, found);
        at.truncate(length);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, inner)| enter(key, inner)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, inner)| enter(&index.to_string(), inner));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::Mutator;

    #[test]
    fn inputs_differ_and_repeat_with_their_seed() {
        let pool = [br#"{"a":[1,{"b":"c"}]}"#.to_vec(), b"plain".to_vec()];
        let make = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..500).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        let made = make(1);
        assert_eq!(made, make(1));
        assert_ne!(made, make(2));
        let different: std::collections::HashSet<_> = made.iter().collect();
        assert!(different.len() > 250, "{}", different.len());
    }
}
