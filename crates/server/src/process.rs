//! What the system says of this process.

use chappe_kv_rocksdb::OPEN_FILES;
use metrics::gauge;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Ticks of the system in a second, the same on every Linux.
const TICKS: f64 = 100.0;
/// Files that may be open beside connections of listeners and tables of the database: connections to other servers, media, the
/// search index.
const OTHER_FILES: u64 = 4_096;

/// Sees to it that so many connections can be open, as far as the system lets the process see to that itself, and says where it
/// does not.
pub(crate) fn allow_connections(connections: usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some((allowed, most)) = open_files(&limits) else { return };
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX);
    let wanted = wanted.saturating_add(OPEN_FILES.into()).saturating_add(OTHER_FILES);
    if allowed >= wanted {
        return;
    }
    let raised = most.min(wanted);
    let limit = Rlimit { current: Some(raised), maximum: Some(most) };
    let allowed = setrlimit(Resource::Nofile, limit).map_or(allowed, |()| raised);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "too few files may be open for `process.max_connections`: raise LimitNOFILE of the unit, or the container's ulimit \
             nofile, or allow fewer connections"
        );
    }
}

/// How many files may be open, and how many the process may allow itself.
fn open_files(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut words = line.split_whitespace();
    Some((number(words.next()?)?, number(words.next()?)?))
}

/// Sets the gauges of this process, under the names that Prometheus' own clients use. What cannot be read stays unset.
pub(crate) fn measure() {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    if let Some(bytes) = resident_bytes(&read("/proc/self/status")) {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = cpu_seconds(&read("/proc/self/stat")) {
        gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(f64::from(u32::try_from(open.count()).unwrap_or(u32::MAX)));
    }
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// User and system time: fields 14 and 15, counted behind the program's name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, open_files, resident_bytes};

    #[test]
    fn what_linux_writes_is_read() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 55 1000 200 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("Name:\tchappe\nVmRSS:\t    2048 kB\nThreads:\t9\n"), Some(2_097_152.0));
        let limits = "Max processes             100                  100                  processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some((1_024, 524_288)));
        assert_eq!(open_files(&limits.replace("524288", "unlimited")), Some((1_024, u64::MAX)));
        assert_eq!((cpu_seconds(""), resident_bytes(""), open_files("")), (None, None, None));
    }
}
