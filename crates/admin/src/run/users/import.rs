//! `users import`: accounts of another server, with the hashes of their passwords.

use chappe_accounts::NewUser;
use chappe_identity::Email;
use serde_json::json;

use super::{Answer, Deps, user_id};
use crate::Error;

/// Accounts in one file.
const MOST: usize = 100_000;
const COLUMNS: [&str; 4] = ["user", "display_name", "email", "password_hash"];

/// Reads the whole file first, so that a broken one makes no account. Accounts that exist are passed over: a run that was
/// interrupted is gone on with by running it again.
pub(super) async fn run(deps: &Deps, text: &str) -> Result<Answer, Error> {
    let mut users = Vec::new();
    for (line, row) in rows(text)? {
        let wrong = |error: &dyn std::fmt::Display| Error::Invalid(format!("line {line}: {error}"));
        users.push((line, new_user(deps, &row).map_err(|error| wrong(&error))?));
    }
    let (mut made, mut known, mut refused) = (0_usize, 0_usize, Vec::new());
    for (line, user) in users {
        match deps.accounts.create_user(user).await {
            Ok(_) => made += 1,
            Err(chappe_accounts::Error::UserInUse) => known += 1,
            Err(chappe_accounts::Error::Store(error)) => return Err(error.into()),
            Err(error) => refused.push(format!("line {line}: {error}")),
        }
    }
    let mut lines = vec![format!("{made} accounts made, {known} were there, {} refused", refused.len())];
    lines.extend(refused.iter().cloned());
    Ok(Answer { lines, data: json!({ "made": made, "known": known, "refused": refused }) })
}

/// A row by the names of its columns.
type Row = Vec<(String, String)>;

fn new_user(deps: &Deps, row: &Row) -> Result<NewUser, Error> {
    let value = |name: &str| {
        let found = row.iter().find(|(column, _)| column == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let user = value("user").ok_or_else(|| Error::Invalid("there is no user".to_owned()))?;
    let email = value("email").map(|email| Email::parse(&email)).transpose();
    let email = email.map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(NewUser {
        localpart: Some(user_id(deps, &user)?.localpart().to_owned()),
        displayname: value("display_name"),
        email: email.map(|email| email.to_string()),
        password_hash: value("password_hash"),
        ..NewUser::default()
    })
}

/// The rows below the line of names, with the number of their line.
fn rows(text: &str) -> Result<Vec<(usize, Row)>, Error> {
    let mut lines = records(text).into_iter();
    let invalid = |error: String| Error::Invalid(error);
    let (_, names) = lines.next().ok_or_else(|| invalid("the file is empty".to_owned()))?;
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| !COLUMNS.contains(&name.as_str())) {
        return Err(invalid(format!("there is no column {unknown:?}; there are {}", COLUMNS.join(", "))));
    }
    let mut rows = Vec::new();
    for (line, values) in lines {
        if values.len() != names.len() {
            return Err(invalid(format!("line {line}: {} values for {} columns", values.len(), names.len())));
        }
        rows.push((line, names.iter().cloned().zip(values).collect()));
    }
    if rows.len() > MOST {
        return Err(invalid(format!("more than {MOST} accounts: cut the file")));
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
    fn a_broken_file_is_refused_as_a_whole() {
        assert!(rows("").is_err() && rows("user,colour\na,b").is_err() && rows("user,email\na").is_err());
        assert_eq!(rows("user\na").unwrap().len(), 1);
    }
}
