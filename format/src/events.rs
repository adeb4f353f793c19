//! The events at which a profile is written.

use crate::options;

/// A signal that a program may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    User1,
    User2,
}

/// A set of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// The process ends by `exit`.
    pub exit: bool,
    /// The process has come near its soft limit.
    pub limit: bool,
    /// A signal arrives.
    pub signal: Option<Signal>,
    /// These many seconds have passed since the last one.
    pub seconds: Option<u64>,
}

impl Events {
    /// Events with commas between them: `exit`, `limit`, `USR1` or `USR2`, and a number of seconds with
    /// `s`, `m` or `h` after it. `None` if one is another word, or there are none.
    pub fn parse(text: &[u8]) -> Option<Events> {
        let mut events = Events::default();
        for event in text.split(|&byte| byte == b',') {
            match event {
                b"exit" => events.exit = true,
                b"limit" => events.limit = true,
                b"USR1" => events.signal = Some(Signal::User1),
                b"USR2" => events.signal = Some(Signal::User2),
                time => events.seconds = Some(seconds(time)?),
            }
        }
        Some(events)
    }
}

fn seconds(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    let unit = match unit {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        _ => return None,
    };
    let number = options::digits(digits)?;
    // A thousand years.
    number
        .checked_mul(unit)
        .filter(|&all| (1..1 << 35).contains(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_understood_as_a_whole_or_not_at_all() {
        let all = Events {
            exit: true,
            limit: true,
            signal: Some(Signal::User2),
            seconds: Some(600),
        };
        assert_eq!(Events::parse(b"exit,limit,USR2,10m"), Some(all));
        assert_eq!(Events::parse(b"90s").unwrap().seconds, Some(90));
        assert_eq!(Events::parse(b"2h,USR1").unwrap().seconds, Some(7200));
        for wrong in [
            "",
            "exit,",
            "USR3",
            "10",
            "m",
            "0m",
            "-1s",
            "1 m",
            "99999999999999999999s",
        ] {
            assert_eq!(Events::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
