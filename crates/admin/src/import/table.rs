//! Comma-separated values whose first line names the columns.

use crate::Error;

/// Lines of one file.
const MOST: usize = 100_000;

/// A line below the first one, by the names of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    values: Result<Vec<(&'static str, String)>, String>,
}

impl Row {
    /// What stands in a column; nothing where that is empty.
    pub(super) fn value(&self, column: &str) -> Option<&str> {
        let values = self.values.as_ref().ok()?;
        let found = values.iter().find(|(name, _)| *name == column);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// The same; a sentence where it is empty, or the line is none of the table.
    pub(super) fn need(&self, column: &str) -> Result<&str, String> {
        self.values.as_ref().map_err(Clone::clone)?;
        self.value(column).ok_or_else(|| format!("there is no {column}"))
    }
}

/// The lines of a table that has some of these columns, the first one at least. [`Error::Invalid`] if it is none.
pub(super) fn rows(text: &str, columns: &[&'static str]) -> Result<Vec<Row>, Error> {
    let invalid = |error: String| Error::Invalid(error);
    let mut lines = records(text).into_iter();
    let (_, names) = lines.next().ok_or_else(|| invalid("the file is empty".to_owned()))?;
    let known = |name: &String| columns.iter().copied().find(|column| *column == name.trim());
    let unknown = |name| format!("there is no column {name:?}; there are {}", columns.join(", "));
    let named: Result<Vec<&'static str>, Error> =
        names.iter().map(|name| known(name).ok_or_else(|| invalid(unknown(name)))).collect();
    let names = named?;
    if let Some(first) = columns.first().filter(|first| !names.contains(first)) {
        return Err(invalid(format!("the column {first} is missing")));
    }
    let row = |(line, values): (usize, Vec<String>)| {
        let values = if values.len() == names.len() {
            Ok(names.iter().copied().zip(values).collect())
        } else {
            Err(format!("{} values for {} columns", values.len(), names.len()))
        };
        Row { line, values }
    };
    let rows: Vec<Row> = lines.map(row).collect();
    if rows.len() > MOST {
        return Err(invalid(format!("more than {MOST} lines: cut the file")));
    }
    Ok(rows)
}

/// Comma-separated values (RFC 4180), each record with the number of the line that it begins on; empty lines are left out.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut records, mut record, mut value) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut line, mut begun) = (false, 1, 1);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => value.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut value)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut value));
                records.push((begun, std::mem::take(&mut record)));
                begun = line + 1;
            }
            c => value.push(c),
        }
        line += usize::from(c == '\n');
    }
    record.push(value);
    records.push((begun, record));
    records.retain(|(_, record)| record.iter().any(|value| !value.is_empty()));
    records
}

#[cfg(test)]
mod tests {
    use super::{records, rows};

    #[test]
    fn commas_quotes_and_line_ends_inside_values() {
        let text =
            "\u{feff}user,display_name\r\njean,\"Jean \"\"J\"\" Martin, [Dinum]\"\n\nana,\"a\nb\"\neve,";
        let read = records(text);
        let values: Vec<Vec<&str>> =
            read.iter().map(|(_, record)| record.iter().map(String::as_str).collect()).collect();
        let jean = "Jean \"J\" Martin, [Dinum]";
        let expected: [[&str; 2]; 4] =
            [["user", "display_name"], ["jean", jean], ["ana", "a\nb"], ["eve", ""]];
        assert_eq!(values, expected);
        assert_eq!(read.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 4, 6]);
    }

    #[test]
    fn a_file_that_is_no_table_is_refused_and_a_line_that_is_none_by_itself() {
        let columns = ["user", "email"];
        for bad in ["", "user,colour\na,b", "email\na@b.fr"] {
            assert!(rows(bad, &columns).is_err(), "{bad}");
        }
        let read = rows("email, user\na@b.fr,a\nb\n,c", &columns).unwrap();
        let seen: Vec<_> = read.iter().map(|row| (row.line, row.value("user"), row.value("email"))).collect();
        assert_eq!(seen, [(2, Some("a"), Some("a@b.fr")), (3, None, None), (4, Some("c"), None)]);
        assert_eq!(read[1].need("user").unwrap_err(), "1 values for 2 columns");
        assert_eq!(read[2].need("email").unwrap_err(), "there is no email");
    }
}
