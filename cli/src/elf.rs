//! The kind of a file: ELF with its machine and loader, or a script.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use object::LittleEndian;
use object::elf::{
    EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, ET_DYN, FileHeader32, FileHeader64,
    PT_DYNAMIC, PT_LOAD,
};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

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
    Some(elf)
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
