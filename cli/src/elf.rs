//! What the head of a file says: which machine it is for, and how it is started.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const ET_DYN: u16 = 3;

/// A program or library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// 32 or 64.
    pub bits: u8,
    /// The number of its machine.
    pub machine: u16,
    /// Whether it can be loaded at any address: libraries can.
    pub is_dynamic: bool,
    /// Whether it has a dynamic section: a static program has none.
    pub has_libraries: bool,
    /// Whether the file has all that is loaded of it: a copy may have been cut off.
    pub is_whole: bool,
    /// Its loader, if it names one.
    pub loader: Option<String>,
}

/// What kind of file it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A program or library.
    Elf(Elf),
    /// A script, with the line behind `#!`.
    Script(String),
    /// Anything else.
    Other,
}

/// Looks at a file.
pub fn look(path: &Path) -> io::Result<Kind> {
    // A FIFO without a writer would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() && !path.is_dir() {
        return Ok(Kind::Other);
    }
    let mut head = [0; 256];
    let len = read_at_most(&file, &mut head, 0)?;
    if let Some(line) = head[..len].strip_prefix(b"#!") {
        let end = line
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(line.len());
        let line = String::from_utf8_lossy(&line[..end]).trim().to_string();
        return Ok(Kind::Script(line));
    }
    // Little endian only: this command runs on no other machine.
    if len < 64 || !head.starts_with(b"\x7fELF") || head[5] != 1 {
        return Ok(Kind::Other);
    }
    let bits = if head[4] == 1 { 32 } else { 64 };
    let number = |at: usize, size: usize| {
        let bytes = head[at..at + size].iter().rev();
        bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let mut elf = Elf {
        bits,
        machine: number(18, 2) as u16,
        is_dynamic: number(16, 2) as u16 == ET_DYN,
        has_libraries: false,
        is_whole: true,
        loader: None,
    };
    let (table, size, count) = match bits {
        32 => (number(28, 4), number(42, 2), number(44, 2)),
        _ => (number(32, 8), number(54, 2), number(56, 2)),
    };
    let file_len = file.metadata()?.len();
    for i in 0..count {
        let mut entry = [0; 56];
        let entry_len = read_at_most(&file, &mut entry, table.saturating_add(i * size))?;
        if entry_len < 32 {
            elf.is_whole = false;
            break;
        }
        let word = |at: usize| {
            u64::from(u32::from_le_bytes([
                entry[at],
                entry[at + 1],
                entry[at + 2],
                entry[at + 3],
            ]))
        };
        let wide = |at: usize| word(at) | word(at + 4) << 32;
        let (offset, len) = match bits {
            32 => (word(4), word(16)),
            _ => (wide(8), wide(32)),
        };
        match word(0) as u32 {
            PT_LOAD => elf.is_whole &= offset.saturating_add(len) <= file_len,
            PT_DYNAMIC => elf.has_libraries = true,
            PT_INTERP => {
                let mut name = vec![0; len.min(4096) as usize];
                let len = read_at_most(&file, &mut name, offset)?;
                let name = name[..len]
                    .split(|&byte| byte == 0)
                    .next()
                    .unwrap_or_default();
                elf.loader = Some(String::from_utf8_lossy(name).into_owned());
            }
            _ => {}
        }
    }
    Ok(Kind::Elf(elf))
}

/// Reads what there is, up to the end of the file.
fn read_at_most(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], offset.saturating_add(len as u64))? {
            0 => break,
            n => len += n,
        }
    }
    Ok(len)
}

/// A machine's name.
pub fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86 of 32 bits".into(),
        40 => "ARM of 32 bits".into(),
        62 => "x86-64".into(),
        183 => "ARM64".into(),
        243 => "RISC-V".into(),
        other => format!("machine number {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_for_this_machine() {
        let own = std::env::current_exe().unwrap();
        let Kind::Elf(elf) = look(&own).unwrap() else {
            panic!("not a program");
        };
        assert_eq!((elf.bits, elf.machine), (64, 62));
        assert!(elf.has_libraries);
        assert!(elf.loader.unwrap().contains("ld-linux"));
    }

    #[test]
    fn scripts_and_texts_are_told_apart() {
        let file = std::env::temp_dir().join(format!("obmalloc-elf-{}", std::process::id()));
        for (text, kind) in [
            ("#! /bin/sh -e\necho", Kind::Script("/bin/sh -e".into())),
            ("#!/bin/sh", Kind::Script("/bin/sh".into())),
            ("plain", Kind::Other),
            ("", Kind::Other),
            ("\x7fELF", Kind::Other),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(look(&file).unwrap(), kind, "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(look(&file).is_err());
    }
}
