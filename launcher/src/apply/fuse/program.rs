//! Finds the program squashfuse_ll of this node, and makes the copy of it that runs.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, Squashfuse};
use crate::plan::Owners;
use crate::policy::Reader;
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Attributes, FsContext, Identity};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;

use super::Slurmstepd;

/// Paths that are searched if coracle.yaml names none: that of packages, and one for the site.
const PLACES: [&str; 2] = ["/usr/bin/squashfuse_ll", "/usr/libexec/coracle/squashfuse_ll"];
/// Name of the copy, and so of the process.
const COPY: &CStr = c"squashfuse_ll";
/// Mode of the copy: a user who executes a program that they may not read cannot inspect its process.
const UNREADABLE: u32 = 0o711;
/// Limit on the size of a program that is copied, in bytes.
const MAX_SIZE: u64 = 64 << 20;
/// Text in the list of options of a squashfuse_ll with `uid` and `gid`, since release 0.2.0. libfuse has options of
/// these names with another text, and squashfuse_ll does not have those.
const SETS_OWNERS: &[u8] = b"set file owner to uid";
/// Switch that lets users inspect every process of theirs (proc_sys_fs(5)).
const DUMPABLE: &str = "/proc/sys/fs/suid_dumpable";

/// The squashfuse_ll of this node.
#[derive(Debug)]
pub struct Program {
    path: CString,
    /// The program, open, if root starts it.
    file: Option<File>,
    /// True if it can show all files as one user's.
    sets_owners: bool,
    /// Step that it serves.
    pub(super) daemon: Option<Slurmstepd>,
}

/// Program that a process executes.
#[derive(Debug)]
pub(super) enum Executable<'a> {
    /// The program, by its path.
    Path(&'a CStr),
    /// A directory that contains the copy.
    Copy(OwnedFd),
}

impl Program {
    /// Finds it, and checks that only root can have written it. An unprivileged caller skips the check: in their user
    /// namespace its owner is not visible, and they risk nothing.
    pub fn find(config: &Config, reader: Reader) -> Result<Self, Refusal> {
        let places: Vec<PathBuf> = match &config.squashfuse {
            Some(Squashfuse(path)) => vec![path.clone()],
            None => PLACES.iter().map(PathBuf::from).collect(),
        };
        for place in &places {
            if reader == Reader::Own {
                if place.is_file() {
                    return Self::new(place, None);
                }
                continue;
            }
            match config::open_trusted(place) {
                Ok(file) => return Self::of_root(place, file),
                Err(config::Error::Read(_, cause)) if cause.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let first = places.first().map(|place| place.display().to_string()).unwrap_or_default();
        let who = match reader {
            Reader::Own => "whoever is not root",
            Reader::Fuse | Reader::Kernel => "user_images: fuse",
        };
        Err(Refusal::new(Kind::System, first, format!("not found on this node, and {who} needs it"))
            .hint("install the package squashfuse, or say in coracle.yaml where it is: squashfuse: PATH"))
    }

    /// Creates a program that root starts. A script is refused, because its interpreter is executed, which all users
    /// may read.
    fn of_root(place: &Path, file: File) -> Result<Self, Refusal> {
        let mut magic = [0; 4];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
            return Err(Refusal::new(Kind::Config, place.display().to_string(), "no ELF program")
                .hint("a script as squashfuse_ll could be traced by its user"));
        }
        refuse_dumpable(&std::fs::read_to_string(DUMPABLE).unwrap_or_default())?;
        Self::new(place, Some(file))
    }

    fn new(place: &Path, file: Option<File>) -> Result<Self, Refusal> {
        let wrong = |_| Refusal::new(Kind::Config, place.display().to_string(), "a path with a NUL");
        let path = CString::new(place.as_os_str().as_bytes()).map_err(wrong)?;
        // The start of a program that is refused or damaged reports the error.
        let bytes = std::fs::read(place).unwrap_or_default();
        let sets_owners = bytes.windows(SETS_OWNERS.len()).any(|window| window == SETS_OWNERS);
        Ok(Self { path, file, sets_owners, daemon: None })
    }

    /// Path of the program.
    pub fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.path.to_bytes()))
    }

    /// Sets the step that it serves.
    pub fn of_step(self, daemon: Option<Slurmstepd>) -> Self {
        Self { daemon, ..self }
    }

    /// True if root starts it, and so has the means to break the connection (fusectl).
    pub(super) fn is_roots(&self) -> bool {
        self.file.is_some()
    }

    /// Owners that it is asked to show.
    pub fn owners(&self, identity: &Identity) -> Owners {
        // It parses an int, and treats 0 as unset.
        let ids = [identity.uid, identity.gid];
        match self.sets_owners && ids.iter().all(|id| (1..=i32::MAX.unsigned_abs()).contains(id)) {
            _ if identity.uid == 0 => Owners::Image,
            true => Owners::AllAreUsers,
            // A FUSE mount of root that all users see shows the node's own owners.
            false if self.is_roots() => Owners::Image,
            false => Owners::RootIsUser,
        }
    }

    /// Program to be executed: a copy on a file system of its own, which ends with the process.
    pub(super) fn executable(&self) -> sys::Result<Executable<'_>> {
        let Some(file) = &self.file else { return Ok(Executable::Path(&self.path)) };
        let failed = |cause| sys::Error::from_io(format!("copy({:?})", self.path), &cause);
        let context = FsContext::open(c"tmpfs")?;
        context.string(c"source", "coracle")?;
        context.string(c"mode", "0711")?;
        context.string(c"size", &MAX_SIZE.to_string())?;
        let place = context.mount(Attributes { read_only: false, no_suid: true, no_dev: true, no_exec: false })?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let copy = nix::fcntl::openat(&place, COPY, flags, Mode::from_bits_truncate(UNREADABLE));
        let copy = File::from(copy.map_err(|errno| sys::Error::new("openat(tmpfs, O_CREAT)", errno))?);
        // The umask may have removed mode bits.
        nix::sys::stat::fchmod(&copy, Mode::from_bits_truncate(UNREADABLE))
            .map_err(|errno| sys::Error::new("fchmod(tmpfs)", errno))?;
        let mut from = file.try_clone().map_err(failed)?;
        std::io::Seek::rewind(&mut from).map_err(failed)?;
        std::io::copy(&mut from, &mut &copy).map_err(failed)?;
        Ok(Executable::Copy(place))
    }
}

impl Executable<'_> {
    /// Descriptor that must stay open for it.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Path(_) => None,
            Self::Copy(place) => Some(place.as_fd()),
        }
    }

    /// Replaces this process, with an empty environment.
    pub(super) fn exec(&self, arguments: &[CString]) -> sys::Result<Infallible> {
        let nothing: [&CStr; 0] = [];
        let (done, call) = match self {
            Self::Path(path) => (nix::unistd::execve(path, arguments, &nothing), format!("execve({path:?})")),
            // By a name in a directory, which becomes the name of the process.
            Self::Copy(place) => (
                nix::unistd::execveat(place, COPY, arguments, &nothing, AtFlags::empty()),
                format!("execveat({COPY:?})"),
            ),
        };
        done.map_err(|errno| sys::Error::new(call, errno))
    }
}

/// Refuses a node on which users may inspect the process of a program that they may not read.
fn refuse_dumpable(switch: &str) -> Result<(), Refusal> {
    match switch.trim() {
        "1" => Err(Refusal::new(Kind::System, DUMPABLE, "1: users could trace squashfuse_ll, which runs on the node")
            .hint("sysctl fs.suid_dumpable=2, or 0")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_lets_users_look_into_every_process_is_refused() {
        assert_eq!(refuse_dumpable("1\n").unwrap_err().kind, Kind::System);
        for fine in ["0\n", "2\n", ""] {
            refuse_dumpable(fine).unwrap();
        }
    }

    #[test]
    fn a_program_is_asked_for_owners_only_if_it_lists_the_options() {
        let user = |uid, gid| Identity { uid, gid, groups: Vec::new() };
        let program = |content: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, content).unwrap();
            Program::new(file.path(), None).unwrap()
        };
        let new = program(b"\x7fELF    -o uid=N               set file owner to uid N\n\0");
        let old = program(b"\x7fELFuid=%d\0gid=%d\0    -o uid=N               set file owner\n\0");
        assert_eq!(new.owners(&user(2001, 100)), Owners::AllAreUsers);
        assert_eq!(old.owners(&user(2001, 100)), Owners::RootIsUser);
        for (uid, gid) in [(2001, 0), (u32::MAX - 1, 100), (2001, 1 << 31)] {
            assert_eq!(new.owners(&user(uid, gid)), Owners::RootIsUser, "{uid}:{gid}");
        }
        assert_eq!(new.owners(&user(0, 0)), Owners::Image);
    }

    #[test]
    fn a_script_is_no_program_of_roots() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let refusal = Program::of_root(script.path(), script.reopen().unwrap()).unwrap_err();
        assert_eq!((refusal.kind, refusal.cause.as_str()), (Kind::Config, "no ELF program"));
    }
}
