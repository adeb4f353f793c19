//! Whether the host's own settings choose another allocator than its default:
//! `PYTHONMALLOC`, `-X dev`, `PYTHONDEVMODE`. The library then stands aside for the user's
//! choice.
//!
//! The command line is read as CPython reads it, as far as it matters here: `-E` and `-I` make
//! CPython ignore the environment, and words after a script, `-c` or `-m` are the program's.
#![forbid(unsafe_code)]

use format::status::Reason;

use super::version::Version;

/// The interpreter's settings, as another library of the process can read them.
pub(crate) struct Settings<A> {
    /// Its arguments, the program's name first.
    pub arguments: A,
    /// The value of `PYTHONMALLOC`.
    pub python_malloc: Option<&'static [u8]>,
    /// The value of `PYTHONDEVMODE`.
    pub dev_mode: Option<&'static [u8]>,
}

/// The reason to stand aside, if the settings choose another allocator.
pub(crate) fn made<A>(version: &Version, settings: Settings<A>) -> Option<Reason>
where
    A: Iterator<Item = &'static [u8]>,
{
    let options = Options::read(settings.arguments);
    let in_force = |value: Option<&'static [u8]>| {
        value.filter(|value| !value.is_empty() && !options.ignores_environment)
    };
    // Versions before 3.6 ignore PYTHONMALLOC.
    let python_malloc = in_force(settings.python_malloc).filter(|_| version.has_tables());
    if python_malloc.is_some() {
        return Some(Reason::PythonMalloc);
    }
    if !version.has_dev_mode() {
        return None;
    }
    if options.dev {
        return Some(Reason::DevOption);
    }
    in_force(settings.dev_mode).map(|_| Reason::DevVariable)
}

/// Whether the interpreter's arguments make it ignore the environment.
pub(crate) fn ignores_environment(arguments: impl Iterator<Item = &'static [u8]>) -> bool {
    Options::read(arguments).ignores_environment
}

#[derive(Default, PartialEq, Eq, Debug)]
struct Options {
    /// `-E` or `-I`.
    ignores_environment: bool,
    /// `-X dev`.
    dev: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = &'static [u8]>) -> Options {
        let mut options = Options::default();
        let _program = arguments.next();
        while let Some(argument) = arguments.next() {
            if let Some(long) = argument.strip_prefix(b"--") {
                if long.is_empty() {
                    break;
                }
                if long == b"check-hash-based-pycs" {
                    let _its_value = arguments.next();
                }
                continue;
            }
            let Some(letters) = argument.strip_prefix(b"-").filter(|rest| !rest.is_empty()) else {
                break; // a script, or `-` for stdin
            };
            if options.read_letters(letters, &mut arguments) == Rest::IsTheProgram {
                break;
            }
        }
        options
    }

    /// Reads a cluster of one-letter options.
    fn read_letters(
        &mut self,
        letters: &'static [u8],
        arguments: &mut impl Iterator<Item = &'static [u8]>,
    ) -> Rest {
        for (i, letter) in letters.iter().enumerate() {
            let attached = Some(&letters[i + 1..]).filter(|rest| !rest.is_empty());
            match letter {
                b'c' | b'm' => return Rest::IsTheProgram,
                b'E' | b'I' => self.ignores_environment = true,
                b'X' | b'W' | b'Q' => {
                    let value = attached.or_else(|| arguments.next()).unwrap_or_default();
                    let name = value.split(|&byte| byte == b'=').next();
                    self.dev |= *letter == b'X' && name == Some(&b"dev"[..]);
                    return Rest::IsOptions;
                }
                _ => {}
            }
        }
        Rest::IsOptions
    }
}

#[derive(PartialEq, Eq)]
enum Rest {
    IsOptions,
    IsTheProgram,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &'static str) -> Options {
        Options::read(line.split(' ').map(str::as_bytes))
    }

    fn choice(
        version: &'static str,
        line: &'static str,
        env: [Option<&'static str>; 2],
    ) -> Option<Reason> {
        let settings = Settings {
            arguments: line.split(' ').map(str::as_bytes),
            python_malloc: env[0].map(str::as_bytes),
            dev_mode: env[1].map(str::as_bytes),
        };
        made(&Version::parse(version).unwrap(), settings)
    }

    #[test]
    fn options_end_where_the_program_begins() {
        let dev = Options {
            dev: true,
            ..Options::default()
        };
        let ignores = Options {
            ignores_environment: true,
            ..Options::default()
        };
        for line in [
            "python -X dev",
            "python -Xdev x.py",
            "python -BX dev -c pass",
            "python -W error -X dev",
            "python -X dev=1",
            "python --check-hash-based-pycs always -X dev -m x",
        ] {
            assert_eq!(options(line), dev, "{line}");
        }
        for line in [
            "python -c -Xdev",
            "python x.py -X dev",
            "python - -X dev",
            "python -m x -X dev",
            "python -X importtime",
            "python -W -Xdev",
            "python -- -X dev",
            "python -cpass -E",
            "python",
            "python -X",
        ] {
            assert_eq!(options(line), Options::default(), "{line}");
        }
        for line in ["python -E x", "python -sIB x", "python -I"] {
            assert_eq!(options(line), ignores, "{line}");
        }
        assert_eq!(Options::read(core::iter::empty()), Options::default());
    }

    #[test]
    fn the_environment_counts_unless_it_is_ignored_or_empty() {
        let malloc = Reason::PythonMalloc;
        assert_eq!(
            choice("3.11.7", "python x", [Some("malloc"), None]),
            Some(malloc)
        );
        assert_eq!(
            choice("3.11.7", "python -E x", [Some("malloc"), Some("1")]),
            None
        );
        assert_eq!(choice("3.11.7", "python x", [Some(""), Some("")]), None);
        assert_eq!(
            choice("3.11.7", "python x", [None, Some("1")]),
            Some(Reason::DevVariable)
        );
        assert_eq!(
            choice("3.11.7", "python -X dev", [Some("malloc"), None]),
            Some(malloc)
        );
        assert_eq!(
            choice("3.11.7", "python -I -X dev", [None, None]),
            Some(Reason::DevOption)
        );
        assert_eq!(choice("3.6.15", "python -X dev", [None, Some("1")]), None);
        assert_eq!(
            choice("2.7.18", "python x", [Some("malloc"), Some("1")]),
            None
        );
    }
}
