//! Which endpoints of the specification are answered: `docs/endpoints.csv` against the table of `chappe dev routes`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};

const SPECIFICATION: &str = "docs/endpoints.csv";
const PAGE: &str = "docs/endpoints.md";

/// Parts of the specification whose endpoints a homeserver answers; it calls the others.
const SERVED: &[&str] = &["client-server", "server-server", "identity"];

/// Operations that share method and path with another one and are answered as well: the table of routes cannot tell them
/// apart. The specification's list writes their paths with a blank at the end.
const FORMS: &[&str] = &["inviteUser", "peekEvents"];

/// Writes the page.
pub(crate) fn write() -> anyhow::Result<ExitCode> {
    let page = current()?;
    fs::write(PAGE, &page)?;
    println!("{}", page.lines().nth(2).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// Fails when the page does not say what the routers answer.
pub(crate) fn check() -> anyhow::Result<ExitCode> {
    if fs::read_to_string(PAGE).unwrap_or_default() == current()? {
        println!("coverage: {PAGE} is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    println!("coverage: {PAGE} is not up to date, run `cargo xtask coverage`");
    Ok(ExitCode::FAILURE)
}

fn current() -> anyhow::Result<String> {
    let specification = endpoints(&fs::read_to_string(SPECIFICATION).context(SPECIFICATION)?)?;
    Ok(render(&specification, &routes()?))
}

/// One endpoint of the specification.
struct Endpoint {
    api: String,
    module: String,
    method: String,
    path: String,
    deprecated: bool,
    /// The operation, if it is another form of a path that is listed already.
    form: Option<String>,
}

fn endpoints(csv: &str) -> anyhow::Result<Vec<Endpoint>> {
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| header.iter().position(|field| *field == name).context(name.to_owned());
    let (api, module, method) = (column("api")?, column("module")?, column("method")?);
    let (path, deprecated, operation) = (column("path")?, column("deprecated")?, column("operation")?);
    let mut endpoints = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != header.len() {
            bail!("{SPECIFICATION}: {} fields in {line:?}", fields.len());
        }
        endpoints.push(Endpoint {
            api: fields[api].to_owned(),
            module: fields[module].to_owned(),
            method: fields[method].to_owned(),
            path: fields[path].trim_end().to_owned(),
            deprecated: !fields[deprecated].is_empty(),
            form: fields[path].ends_with(' ').then(|| fields[operation].to_owned()),
        });
    }
    Ok(endpoints)
}

/// Asks the binary for its table: a line for each route, method and path.
fn routes() -> anyhow::Result<BTreeSet<(String, String)>> {
    // The whole workspace with its tests, as everywhere: else features differ and all would be compiled once more.
    output("cargo", &["build", "--quiet", "--workspace", "--bins", "--tests"])?;
    let metadata = output("cargo", &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().context("target_directory")?;
    Ok(table(&output(&format!("{target}/debug/chappe"), &["dev", "routes"])?))
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    // What cargo tells a program that it runs would make ring, and all that uses it, compile again.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(&name);
        }
    }
    let output = command.args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn table(text: &str) -> BTreeSet<(String, String)> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|words| words.len() >= 2).map(|words| (words[0].to_owned(), shape(words[1]))).collect()
}

/// A path without the names of its parameters, which differ between the specification and our types.
fn shape(path: &str) -> String {
    let segments = path.trim_end_matches('/').split('/');
    segments
        .map(|segment| if segment.starts_with('{') { "{}" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

fn render(specification: &[Endpoint], routes: &BTreeSet<(String, String)>) -> String {
    let is_done = |e: &Endpoint| {
        routes.contains(&(e.method.clone(), shape(&e.path)))
            && e.form.as_deref().is_none_or(|operation| FORMS.contains(&operation))
    };
    let mut totals: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut modules: BTreeMap<(usize, &str), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in specification {
        let Some(rank) = SERVED.iter().position(|api| *api == endpoint.api) else { continue };
        let total = totals.entry(SERVED[rank]).or_default();
        total.0 += usize::from(is_done(endpoint));
        total.1 += 1;
        modules.entry((rank, &endpoint.module)).or_default().push(endpoint);
    }
    let (done, all) = totals.values().fold((0, 0), |sum, total| (sum.0 + total.0, sum.1 + total.1));
    let mut page = format!("# Endpoints\n\n{done} of {all} endpoints of the specification are answered");
    let parts =
        SERVED.iter().filter_map(|api| totals.get(api).map(|(done, all)| format!("{api} {done} of {all}")));
    // Writing to a String cannot fail.
    let _ = write!(page, " ({}).\n\n", parts.collect::<Vec<_>>().join(", "));
    page.push_str(
        "Written by `cargo xtask coverage` from `endpoints.csv` and the table of `chappe dev routes`. ",
    );
    page.push_str("What is not answered is not routed: it gets 404 `M_UNRECOGNIZED`.\n");
    let mut heading = None;
    for ((rank, module), endpoints) in modules {
        if heading != Some(rank) {
            let _ =
                write!(page, "\n## {}\n\n| | method | path | module |\n|---|---|---|---|\n", SERVED[rank]);
            heading = Some(rank);
        }
        for endpoint in endpoints {
            let mark = if is_done(endpoint) { "done" } else { "missing" };
            let old = if endpoint.deprecated { " (deprecated)" } else { "" };
            let form = endpoint.form.as_ref().map(|form| format!(" ({form})")).unwrap_or_default();
            let (method, path) = (&endpoint.method, &endpoint.path);
            let _ = writeln!(page, "| {mark} | {method} | `{path}`{form}{old} | {module} |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "api,module,method,path,operation,deprecated\n\
                       client-server,sync,GET,/_matrix/client/v3/sync,sync,\n\
                       client-server,tags,PUT,/_matrix/client/v3/user/{userId}/tags/{tag},setTag,yes\n\
                       push-gateway,notify,POST,/_matrix/push/v1/notify,notify,\n";

    #[test]
    fn done_and_missing_are_counted_whatever_the_parameters_are_called() {
        let specification = endpoints(CSV).unwrap();
        let page = render(&specification, &table("PUT /_matrix/client/v3/user/{user_id}/tags/{tag}\n"));
        assert!(page.contains("1 of 2 endpoints"), "{page}");
        assert!(page.contains("| missing | GET | `/_matrix/client/v3/sync` | sync |"), "{page}");
        assert!(
            page.contains("| done | PUT | `/_matrix/client/v3/user/{userId}/tags/{tag}` (deprecated) |"),
            "{page}"
        );
        assert!(!page.contains("push"), "{page}");
    }

    #[test]
    fn a_broken_line_is_named() {
        assert!(endpoints("api,module,method,path,operation,deprecated\na,b\n").is_err());
    }

    #[test]
    fn another_form_of_a_path_counts_by_itself() {
        let csv = "api,module,method,path,operation,deprecated\n\
                   client-server,a,GET,/_matrix/client/v3/events,getEvents,yes\n\
                   client-server,b,GET,/_matrix/client/v3/events ,peekEvents,\n\
                   client-server,c,GET,/_matrix/client/v3/events ,noForm,\n";
        let page = render(&endpoints(csv).unwrap(), &table("GET /_matrix/client/v3/events\n"));
        assert!(page.contains("2 of 3 endpoints"), "{page}");
        assert!(page.contains("| done | GET | `/_matrix/client/v3/events` (peekEvents) | b |"), "{page}");
        assert!(page.contains("| missing | GET | `/_matrix/client/v3/events` (noForm) | c |"), "{page}");
    }
}
