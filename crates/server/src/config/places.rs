//! Where each key of a configuration stands in its text.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Every key by its path, such as `client.rates.message` or `listeners.0.port`, with the bytes of its name and its value.
#[derive(Default)]
pub(super) struct Places(Vec<Place>);

struct Place {
    path: String,
    name: Range<usize>,
    value: Range<usize>,
}

impl Places {
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.table("", table);
        places
    }

    fn table(&mut self, above: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = below(above, key.get_ref());
            let place = Place { path: path.clone(), name: key.span(), value: value.span() };
            self.0.push(place);
            self.value(&path, value.get_ref());
        }
    }

    fn value(&mut self, path: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = below(path, &index.to_string());
                    self.0.push(Place { path: path.clone(), name: item.span(), value: item.span() });
                    self.value(&path, item.get_ref());
                }
            }
            _ => {}
        }
    }

    /// The path of the key whose name or value is at `at`, the innermost one.
    pub(super) fn path(&self, at: &Range<usize>) -> Option<&str> {
        let holds = |range: &Range<usize>| range.start <= at.start && at.end <= range.end;
        let around = self.0.iter().filter(|place| holds(&place.name) || holds(&place.value));
        around.max_by_key(|place| place.path.split('.').count()).map(|place| &*place.path)
    }

    /// Where a key is written, or the section that it would be in; `None` for a section that is not there.
    pub(super) fn span(&self, path: &str) -> Option<&Range<usize>> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.iter().find(|place| place.path == path) {
                return Some(&place.name);
            }
            path = path.rsplit_once('.')?.0;
        }
    }
}

fn below(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}
