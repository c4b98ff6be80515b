//! What the system says of this process.

use metrics::gauge;

/// Ticks of the system in a second, the same on every Linux.
const TICKS: f64 = 100.0;

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
    use super::{cpu_seconds, resident_bytes};

    #[test]
    fn what_linux_writes_is_read() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 55 1000 200 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("Name:\tchappe\nVmRSS:\t    2048 kB\nThreads:\t9\n"), Some(2_097_152.0));
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }
}
