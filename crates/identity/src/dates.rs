//! Dates for people.

/// A point in time (milliseconds since 1970), to the minute.
pub fn moment(ms: u64) -> String {
    let (minutes, days) = (ms / 60_000, ms / 86_400_000);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    // The calendar repeats every 400 years of 146,097 days; counted from the first of March, the leap day comes last.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02} UTC")
}

/// The day of a date such as `2026-11-30`, counted from 1970; `None` for what is none.
pub fn day_of(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // Counted from the first of March, as above.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + year * 365 + year / 4 - year / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    // What comes out as another date was none.
    moment(days * 86_400_000).starts_with(date).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::{day_of, moment};

    #[test]
    fn dates_and_days_belong_together() {
        for day in (0..60_000).step_by(17) {
            assert_eq!(day_of(&moment(day * 86_400_000)[..10]), Some(day));
        }
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-2-3",
            "26-01-01",
            "2026-01-01x",
            "1969-12-31",
            "2026-04-31",
        ] {
            assert_eq!(day_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(moment(1_796_080_859_999), "2026-11-30 23:20 UTC");
        assert_eq!(moment(4_107_542_399_000), "2100-02-28 23:59 UTC");
        assert_eq!(moment(4_107_542_400_000), "2100-03-01 00:00 UTC");
    }
}
