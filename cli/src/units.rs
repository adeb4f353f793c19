//! Numbers for people.

use std::time::Duration;

/// Bytes with a unit and about three digits: `972 B`, `1.4 KiB`, `61.2 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    // A value that rounds to 1024 is 1 of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A count with spaces between groups of three digits: `1 234 567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `count` with a noun: `1 page`, `2 pages`.
pub fn of(n: u64, word: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(n))
}

/// A part of a whole in percent: `7 %`, `0.4 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    if percent == 0.0 || percent >= 9.95 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A time on the command line: `500ms`, `5s`, `2m`, `1h`; a number is in seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is expected, such as 500ms, 5s or 2m".into()),
    };
    let number = text[..text.len() - unit.len()].parse::<f64>();
    match number.map(|number| number * seconds) {
        Ok(seconds) if (0.001..=604_800.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("a time from 1ms to 168h is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let of = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(of("500ms"), Ok(500));
        assert_eq!(
            (of("5s"), of("5"), of("0.5")),
            (Ok(5000), Ok(5000), Ok(500))
        );
        assert_eq!((of("2m"), of("1h")), (Ok(120_000), Ok(3_600_000)));
        for text in [
            "", "s", "-1s", "5x", "0", "1e9", "999h", "1e99h", "nan", "1d", "1.2.3s", "inf", "ms5",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_have_about_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(100 * 1024), "100 KiB");
        assert_eq!(bytes(1_048_570), "1.0 MiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1234), "1 234");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(
            (of(1, "page"), of(0, "page")),
            ("1 page".into(), "0 pages".into())
        );
        assert_eq!(
            (percent(1, 3), percent(1, 300)),
            ("33 %".into(), "0.3 %".into())
        );
        assert_eq!((percent(0, 3), percent(3, 0)), ("0 %".into(), "-".into()));
    }
}
