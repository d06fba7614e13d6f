//! Reads the loader and the library directories of a program of the node (elf(5)).
//!
//! Only headers and a few strings are read: an unstripped srun has megabytes.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use elf::abi::{DT_RPATH, DT_RUNPATH, DT_STRTAB, PT_INTERP, PT_LOAD};
use elf::endian::AnyEndian;
use elf::{ElfStream, ParseError};

/// Limit on a string: that of a path (PATH_MAX), and longer than any real list of library directories.
const MAX_STRING: usize = 4096;

/// Loader and library directories of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Loader; nothing for a static program.
    pub loader: Option<String>,
    /// Value of RUNPATH or RPATH, unexpanded.
    pub run_path: Option<String>,
}

impl Program {
    /// Parses `file`; an error of reading, or `InvalidData` for a file that is not ELF.
    pub fn read(file: &File) -> io::Result<Self> {
        let fault = |error: ParseError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut stream = ElfStream::<AnyEndian, _>::open_stream(file).map_err(fault)?;
        let (mut strings, mut list) = (None, None);
        if let Some(dynamic) = stream.dynamic().map_err(fault)? {
            for entry in dynamic.iter() {
                match entry.d_tag {
                    DT_STRTAB => strings = Some(entry.d_ptr()),
                    // ld.so(8) ignores RPATH if there is a RUNPATH.
                    DT_RUNPATH => list = Some(entry.d_val()),
                    DT_RPATH => list = list.or(Some(entry.d_val())),
                    _ => {}
                }
            }
        }
        let segments = stream.segments();
        let interpreter = segments.iter().find(|segment| segment.p_type == PT_INTERP);
        let loader = interpreter.map(|segment| string_at(file, segment.p_offset)).transpose()?;
        // The dynamic section names the string table by its address in memory.
        let table = strings.and_then(|address| {
            segments.iter().filter(|segment| segment.p_type == PT_LOAD).find_map(|segment| {
                let within = address.checked_sub(segment.p_vaddr).filter(|within| *within < segment.p_filesz)?;
                segment.p_offset.checked_add(within)
            })
        });
        let place = table.zip(list).and_then(|(table, list)| table.checked_add(list));
        let run_path = place.map(|place| string_at(file, place)).transpose()?;
        Ok(Self { loader, run_path })
    }
}

/// The NUL-terminated text at `offset`, in bytes.
fn string_at(file: &File, offset: u64) -> io::Result<String> {
    let mut bytes = [0; MAX_STRING];
    let length = file.read_at(&mut bytes, offset)?;
    let text = bytes.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(&[0]).and_then(|text| str::from_utf8(text).ok());
    text.map(str::to_owned).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no text where one should be"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_program_of_this_machine_names_its_loader() {
        let program = Program::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert!(program.loader.is_some_and(|loader| loader.starts_with('/') && loader.contains("ld")));
        assert_eq!(program.run_path, None);
    }

    #[test]
    fn what_is_no_program_is_an_error_wherever_it_is_cut() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 3, 16, 63, 64, 100, 4096] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole[..length]).unwrap();
            assert!(Program::read(&file).is_err(), "{length}");
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"#!/bin/sh\nexec /opt/slurm/bin/srun.real\n").unwrap();
        assert_eq!(Program::read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
