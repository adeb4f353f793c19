//! The kind of a file: ELF with its machine and loader, or a script.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use object::LittleEndian;
use object::elf::{
    DT_NEEDED, DT_STRSZ, DT_STRTAB, EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, ET_DYN,
    FileHeader32, FileHeader64, PT_DYNAMIC, PT_LOAD,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, StringTable};

/// A C library: a program that is linked with one cannot load a library that is linked with
/// another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Libc {
    /// Most distributions'.
    Glibc,
    /// Alpine's.
    Musl,
}

impl fmt::Display for Libc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Libc::Glibc => "glibc",
            Libc::Musl => "musl",
        })
    }
}

impl Libc {
    /// The C library that has a file of this name: its loader, or itself.
    pub fn of_file(name: &str) -> Option<Libc> {
        let name = name.rsplit('/').next().unwrap_or(name);
        if name.starts_with("ld-musl-") || name == "libc.so" || name.starts_with("libc.musl-") {
            Some(Libc::Musl)
        } else if (name.starts_with("ld-") && name.contains(".so")) || name == "libc.so.6" {
            Some(Libc::Glibc)
        } else {
            None
        }
    }
}

/// A program or library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// 32 or 64.
    pub bits: u8,
    /// The number of the machine that it is for.
    pub machine: u16,
    /// Whether it can be loaded at any address: libraries can.
    pub is_dynamic: bool,
    /// Whether it has a dynamic section: a static program has none.
    pub has_libraries: bool,
    /// Whether the file has every byte that its segments load; a truncated copy has not.
    pub is_whole: bool,
    /// Its loader, if it names one.
    pub loader: Option<String>,
    /// The C library that it is linked with, if it is one of those.
    pub libc: Option<Libc>,
}

/// What kind of file it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A program or library.
    Elf(Elf),
    /// A script, with the line after `#!`.
    Script(String),
    /// Anything else.
    Other,
}

/// Looks at a file.
pub fn look(path: &Path) -> io::Result<Kind> {
    // Without O_NONBLOCK, the open of a FIFO waits for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() && !path.is_dir() {
        return Ok(Kind::Other);
    }
    let mut head = Vec::new();
    (&file).take(256).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim().to_string();
        return Ok(Kind::Script(line));
    }
    let len = file.metadata()?.len();
    let file = ReadCache::new(file);
    // Little endian only: the command runs on no other machine.
    let elf = read::<FileHeader64<LittleEndian>>(&file, 64, len)
        .or_else(|| read::<FileHeader32<LittleEndian>>(&file, 32, len));
    Ok(elf.map_or(Kind::Other, Kind::Elf))
}

/// The file's headers, if it is an ELF file of this form.
fn read<Header: FileHeader<Endian = LittleEndian>>(
    file: &ReadCache<File>,
    bits: u8,
    len: u64,
) -> Option<Elf> {
    let header = Header::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let mut elf = Elf {
        bits,
        machine: header.e_machine(endian),
        is_dynamic: header.e_type(endian) == ET_DYN,
        has_libraries: false,
        is_whole: true,
        loader: None,
        libc: None,
    };
    let Ok(segments) = header.program_headers(endian, file) else {
        elf.is_whole = false;
        return Some(elf);
    };
    for segment in segments {
        match segment.p_type(endian) {
            PT_LOAD => {
                let (offset, size) = segment.file_range(endian);
                elf.is_whole &= offset.saturating_add(size) <= len;
            }
            PT_DYNAMIC => elf.has_libraries = true,
            _ => {}
        }
        if let Ok(Some(name)) = segment.interpreter(endian, file) {
            elf.loader = Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    elf.libc = match &elf.loader {
        Some(loader) => Libc::of_file(loader),
        None => needed(header, endian, file)
            .iter()
            .find_map(|name| Libc::of_file(name)),
    };
    Some(elf)
}

/// The libraries that the file needs, as far as it can be read.
fn needed<Header: FileHeader<Endian = LittleEndian>>(
    header: &Header,
    endian: LittleEndian,
    file: &ReadCache<File>,
) -> Vec<String> {
    let read = || {
        let segments = header.program_headers(endian, file).ok()?;
        let entries = segments
            .iter()
            .find_map(|segment| segment.dynamic(endian, file).ok()?)?;
        let value = |tag: u32| {
            let entry = entries
                .iter()
                .find(|entry| entry.tag32(endian) == Some(tag))?;
            Some(entry.d_val(endian).into())
        };
        let (address, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
        let offset = segments.iter().find_map(|segment| {
            let from = address.checked_sub(segment.p_vaddr(endian).into())?;
            let (offset, length) = segment.file_range(endian);
            let is_it = segment.p_type(endian) == PT_LOAD && from < length;
            is_it.then(|| offset.saturating_add(from))
        })?;
        let strings = StringTable::new(file, offset, offset.saturating_add(size));
        let names = entries.iter().filter_map(|entry| {
            let is_it = entry.tag32(endian) == Some(DT_NEEDED);
            let place = is_it.then(|| entry.val32(endian))??;
            let name = strings.get(place).ok()?;
            Some(String::from_utf8_lossy(name).into_owned())
        });
        Some(names.collect())
    };
    read().unwrap_or_default()
}

/// A machine's name.
pub fn machine_name(machine: u16) -> String {
    match machine {
        EM_386 => "x86 of 32 bits".into(),
        EM_ARM => "ARM of 32 bits".into(),
        EM_X86_64 => "x86-64".into(),
        EM_AARCH64 => "ARM64".into(),
        EM_RISCV => "RISC-V".into(),
        other => format!("machine number {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;

    #[test]
    fn this_program_is_for_this_machine() {
        let own = std::env::current_exe().unwrap();
        let Kind::Elf(elf) = look(&own).unwrap() else {
            panic!("not a program");
        };
        assert_eq!((elf.bits, elf.machine), (64, library::MACHINE));
        assert!(elf.has_libraries);
        if cfg!(target_env = "musl") {
            assert_eq!(elf.loader, None); // linked statically
        } else {
            assert!(elf.loader.unwrap().contains("ld-linux"));
            assert_eq!(elf.libc, Some(Libc::Glibc));
        }
    }

    #[test]
    fn c_libraries_are_told_apart_by_names_of_files() {
        for (name, libc) in [
            ("/lib64/ld-linux-x86-64.so.2", Some(Libc::Glibc)),
            ("/lib/ld-linux-aarch64.so.1", Some(Libc::Glibc)),
            ("/lib/x86_64-linux-gnu/ld-2.31.so", Some(Libc::Glibc)),
            ("/lib/ld-musl-x86_64.so.1", Some(Libc::Musl)),
            ("libc.so.6", Some(Libc::Glibc)),
            ("libc.so", Some(Libc::Musl)),
            ("libc.musl-x86_64.so.1", Some(Libc::Musl)),
            ("libm.so.6", None),
            ("/system/bin/linker64", None),
        ] {
            assert_eq!(Libc::of_file(name), libc, "{name}");
        }
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
