//! From a TOML file and environment variables to a [`Config`]; an error names the key and where it was written.

use std::{fmt::Write, ops::Range, path::Path};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{
    Config,
    mistake::{Error, Mistake},
    places::Places,
    valid,
    written::Written,
};

/// Environment variables with this beginning override the file; `__` separates section and key.
const PREFIX: &str = "CHAPPE__";

/// Reads `file`, puts the environment above it and checks the whole.
pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, Error> {
    let text = match file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Error::Unreadable { file: file.to_owned(), error })?,
    };
    let name = file.map_or_else(|| "(no file)".to_owned(), |file| file.display().to_string());
    let mut config = parse(&name, &text, env)?;
    config.written.file = file.map(Path::to_owned);
    Ok(config)
}

/// As [`load`], from a text; `name` is what errors call it.
pub fn parse(name: &str, text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Config, Error> {
    let env: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX) && name.len() > PREFIX.len()).collect();
    let source = Source::new(name, text, &env);
    let mut table = DeTable::parse(text).map_err(|error| source.explain(&error, None))?;
    for variable in &source.variables {
        let written = &source.full[variable.value.clone()];
        let value = DeValue::parse(written).map_or_else(
            |_| plain(written, &variable.value),
            |parsed| shifted(parsed.into_inner(), &variable.value),
        );
        insert(table.get_mut(), &variable.path, variable, value)
            .map_err(|()| source.wrong(&variable.value, "a part of this name is a value, not a section"))?;
    }
    let places = Places::of(table.get_ref());
    let explain = |error: toml::de::Error| {
        let path = error.span().and_then(|span| places.path(&span).map(str::to_owned));
        source.explain(&error, path.as_deref())
    };
    let whole = toml::Table::deserialize(Deserializer::from(table.clone())).map_err(explain)?;
    let mut config = Config::deserialize(Deserializer::from(table)).map_err(explain)?;
    let problems = valid::problems(&config);
    if problems.is_empty() {
        let (name, text) = (name.to_owned(), text.to_owned());
        config.written = Written { file: None, name, text, env, table: whole };
        return Ok(config);
    }
    let named = |problem: valid::Problem| {
        let message = format!("`{}`: {}", problem.key, problem.sentence);
        match places.span(&problem.key) {
            Some(span) => source.locate(span, &message),
            None => Mistake::somewhere(name, message),
        }
    };
    Err(Error::Wrong(problems.into_iter().map(named).collect()))
}

/// An override: its path, and where name and value stand in the full text.
struct Variable {
    path: Vec<String>,
    name: Range<usize>,
    value: Range<usize>,
}

/// The file's text with the overrides written behind it, so that every value has a place in one text.
struct Source {
    name: String,
    full: String,
    file_length: usize,
    variables: Vec<Variable>,
}

impl Source {
    fn new(name: &str, text: &str, env: &[(String, String)]) -> Self {
        let mut overrides = env.to_vec();
        overrides.sort();
        let mut full = format!("{text}\n");
        let file_length = full.len();
        let mut variables = Vec::new();
        for (variable, value) in overrides {
            let path = variable[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            let start = full.len();
            // Writing to a String cannot fail.
            let _ = writeln!(full, "{variable}={value}");
            let name = start..start + variable.len();
            let value = name.end + 1..name.end + 1 + value.len();
            variables.push(Variable { path, name, value });
        }
        Self { name: name.to_owned(), full, file_length, variables }
    }

    /// An error of the TOML crate with file or variable, line and key.
    fn explain(&self, error: &toml::de::Error, path: Option<&str>) -> Error {
        let message = match path {
            Some(path) => format!("`{path}`: {}", error.message()),
            None => error.message().to_owned(),
        };
        match error.span() {
            Some(span) => self.wrong(&span, &message),
            None => Error::Wrong(vec![Mistake::somewhere(&self.name, message)]),
        }
    }

    fn wrong(&self, at: &Range<usize>, message: &str) -> Error {
        Error::Wrong(vec![self.locate(at, message)])
    }

    /// A message with the file, the line and what is written there, or with the variable.
    fn locate(&self, at: &Range<usize>, message: &str) -> Mistake {
        if at.start >= self.file_length {
            let variable =
                self.variables.iter().find(|v| v.name.start <= at.start && at.start <= v.value.end);
            let name = variable.map_or("?", |v| &self.full[v.name.clone()]);
            return Mistake::somewhere(&format!("environment variable {name}"), message.to_owned());
        }
        let before = &self.full[..at.start];
        let line = before.matches('\n').count() + 1;
        let content = self.full.lines().nth(line - 1).unwrap_or_default();
        let place = format!("{}, line {line}", self.name);
        Mistake { place, sentence: message.to_owned(), shown: Some(format!("{line} | {content}")) }
    }
}

/// The value with `place` as its span: spans inside it would point into the variable alone.
fn shifted<'a>(value: DeValue<'a>, place: &Range<usize>) -> Spanned<DeValue<'a>> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shifted(item.into_inner(), place)).collect())
        }
        DeValue::Table(entries) => DeValue::Table(
            entries
                .into_iter()
                .map(|(key, value)| {
                    (Spanned::new(place.clone(), key.into_inner()), shifted(value.into_inner(), place))
                })
                .collect(),
        ),
        other => other,
    };
    Spanned::new(place.clone(), value)
}

fn plain<'a>(text: &'a str, place: &Range<usize>) -> Spanned<DeValue<'a>> {
    Spanned::new(place.clone(), DeValue::String(text.into()))
}

/// Puts a value at a path; sections on the way are made.
fn insert<'a>(
    table: &mut DeTable<'a>,
    path: &'a [String],
    variable: &Variable,
    value: Spanned<DeValue<'a>>,
) -> Result<(), ()> {
    let (key, rest) = path.split_first().ok_or(())?;
    let spanned = Spanned::new(variable.name.clone(), key.as_str().into());
    if rest.is_empty() {
        table.remove(key.as_str());
        table.insert(spanned, value);
        return Ok(());
    }
    if !table.contains_key(key.as_str()) {
        table.insert(spanned, Spanned::new(variable.name.clone(), DeValue::Table(DeTable::new())));
    }
    match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => insert(inner, rest, variable, value),
        Some(DeValue::Array(items)) => {
            let index: usize = rest.first().and_then(|index| index.parse().ok()).ok_or(())?;
            match items.get_mut(index).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => insert(inner, &rest[1..], variable, value),
                _ => Err(()),
            }
        }
        _ => Err(()),
    }
}
