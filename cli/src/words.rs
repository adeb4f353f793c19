//! From the words after `run` to the command that is executed.
//!
//! ```text
//!   a program on PATH, an executable file      unchanged
//!   FILE.py and the like, a folder or a zip
//!   file with __main__.py, -m MODULE, -c CODE  PYTHON and all of the words
//!   words that begin with `-`, after `--`      PYTHON and all of the words
//! ```
//!
//! `python -m obmalloc run` is `obmalloc run --python` with its own interpreter; another
//! `--python` replaces it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use clap::Args;

use crate::elf::{self, Kind};
use crate::failure::{Failure, USAGE};
use crate::program;

/// The words of a command, and its interpreter.
#[derive(Args)]
pub struct Words {
    /// The interpreter for Python files, -m and -c [default: python3 on PATH]
    #[arg(long, value_name = "PYTHON", overrides_with = "python")]
    python: Option<OsString>,

    /// A program on PATH or an executable file, a Python file, -m MODULE or -c CODE; and its
    /// arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    words: Vec<OsString>,
}

impl Words {
    /// The command, which has at least one word.
    pub fn command(&self) -> Result<Vec<OsString>, Failure> {
        let Some(first) = self.words.first() else {
            return Err(Failure::new(
                "no command to run",
                "write it after `--`: obmalloc run -- python3 app.py",
            )
            .status(USAGE));
        };
        if is_option(first) {
            let is_pythons = ["-m", "-c"].contains(&&*first.to_string_lossy());
            if !is_pythons && !self.follows_dashes() {
                return Err(Failure::new(
                    format!("{} is no option of `obmalloc run`", first.display()),
                    "obmalloc run --help lists them; options of the interpreter follow `--`",
                )
                .status(USAGE));
            }
            return self.by_python();
        }
        if self.is_for_python(first) {
            return self.by_python();
        }
        let is_path = first.as_encoded_bytes().contains(&b'/');
        if program::find(first).is_none() && !(is_path && Path::new(first).exists()) {
            if self.python.is_some() && is_pythons_name(first) {
                return self.by_itself(first);
            }
            return Err(unknown(first));
        }
        Ok(self.words.clone())
    }

    /// Whether `--` precedes the words: then options are the interpreter's.
    fn follows_dashes(&self) -> bool {
        let all: Vec<_> = env::args_os().collect();
        let before = all.len().checked_sub(self.words.len() + 1);
        before.is_some_and(|at| all[at] == "--")
    }

    /// Whether the file is for an interpreter.
    fn is_for_python(&self, name: &OsStr) -> bool {
        let path = Path::new(name);
        if !path.exists() {
            return false;
        }
        let is_script = is_named_as_python(path);
        if program::find(name).is_some() {
            // A script with an interpreter of its own is a program, unless --python names another.
            let starts_itself = matches!(elf::look(path), Ok(Kind::Script(_) | Kind::Elf(_)));
            return is_script && path.is_file() && (!starts_itself || self.python.is_some());
        }
        is_script
            || path.join("__main__.py").is_file()
            || is_script_of_python(path)
            || has_main(path).unwrap_or(false)
    }

    fn by_python(&self) -> Result<Vec<OsString>, Failure> {
        let python = self.python.clone().unwrap_or_else(|| "python3".into());
        if program::find(&python).is_none() {
            return Err(Failure::new(
                format!("there is no {} to start", python.display()),
                "name an interpreter: --python /path/to/python3",
            )
            .status(127));
        }
        let words = self.words.iter().cloned();
        Ok([python].into_iter().chain(words).collect())
    }

    /// The interpreter of --python in place of `python` or `python3`, which is not on PATH.
    fn by_itself(&self, first: &OsStr) -> Result<Vec<OsString>, Failure> {
        let python = self
            .python
            .clone()
            .filter(|python| program::find(python).is_some());
        let python = python.ok_or_else(|| unknown(first))?;
        let rest = self.words[1..].iter().cloned();
        Ok([python].into_iter().chain(rest).collect())
    }
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

fn is_pythons_name(name: &OsStr) -> bool {
    ["python", "python3"].iter().any(|python| name == *python)
}

fn is_named_as_python(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ["py", "pyw", "pyc", "pyz"].contains(&extension))
}

/// Whether the first line names a Python: a script that may lack execute permission.
fn is_script_of_python(path: &Path) -> bool {
    path.is_file() && matches!(elf::look(path), Ok(Kind::Script(line)) if line.contains("python"))
}

/// Whether it is a zip file with a `__main__.py`, by the directory at its end.
fn has_main(path: &Path) -> Option<bool> {
    const END: usize = 22;
    const NAME: &[u8] = b"__main__.py";
    // The limit of bytes that are read at its end.
    const MOST: u64 = 16 << 20;
    if !path.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let mut head = [0; 4];
    file.read_exact(&mut head).ok()?;
    if head != *b"PK\x03\x04" {
        return None;
    }
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MOST))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let end = tail
        .windows(END)
        .rposition(|at| at.starts_with(b"PK\x05\x06"))?;
    let size: [u8; 4] = tail[end + 12..end + 16].try_into().ok()?;
    let list = end.saturating_sub(u32::from_le_bytes(size) as usize);
    let mut names = tail[list..end].windows(46 + NAME.len());
    Some(names.any(|at| at.starts_with(b"PK\x01\x02") && at[46..] == *NAME))
}

/// The failure of a first word that is neither program nor file, with a near name if there is
/// one.
fn unknown(name: &OsStr) -> Failure {
    let text = name.to_string_lossy();
    let next = match meant(name) {
        Some(other) => format!("did you mean {other}?"),
        None => "is its name right, and is it on PATH?".into(),
    };
    Failure::new(
        format!("cannot start {text}: No such program, and no Python file"),
        next,
    )
    .status(127)
}

fn meant(name: &OsStr) -> Option<String> {
    let text = name.to_str()?;
    let here = |name: String| Path::new(&name).is_file().then_some(name);
    if let Some(found) = here(format!("{text}.py")) {
        return Some(found);
    }
    if text.contains('/') {
        return None;
    }
    if Path::new(text).is_file() {
        let here = format!("./{text}");
        let is_program = program::find(OsStr::new(&here)).is_some();
        return Some(if is_program {
            here
        } else {
            format!("python3 {text}")
        });
    }
    let module = text.replace('.', "/");
    if [format!("{module}.py"), format!("{module}/__main__.py")]
        .into_iter()
        .any(|name| here(name).is_some())
    {
        return Some(format!("-m {text}"));
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let files = env::split_paths(&folders)
        .chain([".".into()])
        .flat_map(|folder| {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            entries.map(move |entry| (folder.clone(), entry.file_name()))
        });
    let alike = files.filter(|(folder, file)| {
        let path = folder.join(file);
        file.to_str().is_some_and(|file| is_alike(text, file))
            && (program::find(path.as_os_str()).is_some() || is_named_as_python(&path))
    });
    // The same on each machine: the first by its name.
    alike
        .map(|(_, file)| file.to_string_lossy().into_owned())
        .min()
}

/// Whether a slip of the fingers lies between two names: one letter more, less or another,
/// or two that have changed places.
fn is_alike(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len() < 3 || one.len().abs_diff(other.len()) > 1 {
        return false;
    }
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same..], &other[same..]);
    let swapped = one.len() >= 2
        && other.len() >= 2
        && (one[0], one[1]) == (other[1], other[0])
        && one[2..] == other[2..];
    let rest = |letters: &'_ [char], from: usize| letters.get(from..).unwrap_or_default().to_vec();
    swapped
        || rest(one, 1) == rest(other, 1)
        || rest(one, 1) == *other
        || *one == rest(other, 1)[..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen() {
        for (one, other) in [
            ("pyhton3", "python3"),
            ("python", "python3"),
            ("pythonn3", "python3"),
            ("gunicron", "gunicorn"),
            ("xython3", "python3"),
        ] {
            assert!(is_alike(one, other), "{one} {other}");
            assert!(is_alike(other, one), "{one} {other}");
        }
        for (one, other) in [("sh", "ssh"), ("python", "perl"), ("gunicorn", "unicorns")] {
            assert!(!is_alike(one, other), "{one} {other}");
        }
    }
}
