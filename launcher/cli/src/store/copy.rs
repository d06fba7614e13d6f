//! Copies an image into the store, and hashes the bytes that were written.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::request::Digest;
use coracle::sys::{self, Channel, Preamble};
use coracle_launcher::children::ask::{self, Failure};
use coracle_launcher::image::digest::Hasher;
use serde::{Deserialize, Serialize};

/// Number of bytes that are read and written at once, and number of such buffers between reading and hashing.
const BUFFER: usize = 1 << 20;
const BUFFERS: usize = 4;
/// Time limit without a byte of a file: a file system that its user runs can stop at will.
const STALL: Duration = Duration::from_secs(60);
/// Lowest speed of an image's copy, in bytes a second.
const SLOWEST: u64 = 1 << 20;
/// Time between reports on the copy.
const NEWS: Duration = Duration::from_millis(200);

/// Copies `size` bytes into `to` and returns their digest. Calls `tell` with the progress. Ends early, with ECANCELED
/// as cause of its refusal, when the other end of `line` is closed.
///
/// The copy runs in a child process for two reasons: reading may never end, and hashing needs a thread, with which this
/// process could not fork.
pub fn copy(
    name: &str,
    from: &File,
    size: u64,
    to: &File,
    line: &Channel,
    mut tell: impl FnMut(u64) -> Result<(), Refusal>,
) -> Result<Digest, Refusal> {
    let failed = |error: sys::Error| Refusal::system(name, &error);
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let child = sys::fork_alone(|forked| {
        // It has the ids of the service, and a thread.
        let kept = [from.as_fd(), to.as_fd(), theirs.as_fd()];
        let preamble = Preamble { kept: Some(&kept), ..Preamble::default() }.enter(forked);
        let done = preamble.map_err(|error| error.to_string()).and_then(|()| work(from, size, to, &theirs));
        let last = done
            .map(|digest| Progress::Done { digest: digest.to_string() })
            .map_err(|cause| Refusal::new(Kind::Store, "", cause));
        let _ = ask::answer(&theirs, last.as_ref(), &[], Instant::now() + STALL);
        0
    })
    .map_err(failed)?;
    drop(theirs);
    let end = Instant::now() + STALL + Duration::from_secs(size / SLOWEST);
    loop {
        if Instant::now() > end {
            return Err(Refusal::new(Kind::Timeout, name, "copying it takes too long"));
        }
        let received = ours.receive_for(line, Instant::now() + STALL);
        let progress = ask::decode(received).map_err(|failure| match failure {
            Failure::Refused(refusal) => Refusal { object: name.to_owned(), ..refusal },
            Failure::Late => Refusal::new(Kind::Timeout, name, "nothing could be read from it for a minute"),
            Failure::Ended => Refusal::new(Kind::Internal, name, "the copying process has died"),
            Failure::Garbled => Refusal::new(Kind::Internal, name, "the copying process said nothing that makes sense"),
            Failure::System(error) => failed(error),
        })?;
        match progress.found {
            Progress::Copied { bytes } => tell(bytes)?,
            Progress::Done { digest } => {
                // The child has the copy open for writing until it ends. fs-verity refuses files that are open for
                // writing.
                child.wait_until(Instant::now() + STALL).map_err(failed)?;
                return Digest::parse(digest.as_ref())
                    .map_err(|_| Refusal::new(Kind::Internal, name, "the copying process made no digest"));
            }
        }
    }
}

/// Message of the child process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// Number of bytes that are copied.
    Copied { bytes: u64 },
    /// The copy is complete.
    Done { digest: String },
}

/// Copies and hashes in the child process. Errors of both files are texts.
fn work(from: &File, size: u64, to: &File, line: &Channel) -> Result<Digest, String> {
    std::thread::scope(|scope| {
        let (full, to_hash) = mpsc::sync_channel::<(Vec<u8>, usize)>(BUFFERS);
        let (empty, to_fill) = mpsc::sync_channel::<Vec<u8>>(BUFFERS);
        (0..BUFFERS).for_each(|_| {
            let _ = empty.send(vec![0; BUFFER]);
        });
        let hashing = scope.spawn(move || {
            let mut hash = Hasher::default();
            for (buffer, length) in to_hash {
                hash.update(buffer.get(..length).unwrap_or_default());
                if empty.send(buffer).is_err() {
                    break;
                }
            }
            hash.finish()
        });
        let (mut at, mut told) = (0, Instant::now());
        while at < size {
            let mut buffer = to_fill.recv().map_err(|cause| cause.to_string())?;
            let wanted = BUFFER.min(usize::try_from(size - at).unwrap_or(BUFFER));
            let slice = buffer.get_mut(..wanted).unwrap_or_default();
            let length = read(from, slice, at).map_err(|cause| format!("cannot be read: {cause}"))?;
            if length == 0 {
                return Err(CHANGED.into());
            }
            to.write_all_at(buffer.get(..length).unwrap_or_default(), at).map_err(|cause| full_or(&cause))?;
            at += length as u64;
            full.send((buffer, length)).map_err(|cause| cause.to_string())?;
            if told.elapsed() >= NEWS || at == size {
                told = Instant::now();
                // The last message shows if the parent still reads.
                let _ = ask::answer(line, Ok(&Progress::Copied { bytes: at }), &[], Instant::now() + STALL);
            }
        }
        if read(from, &mut [0], at).map_err(|cause| format!("cannot be read: {cause}"))? != 0 {
            return Err(CHANGED.into());
        }
        drop(full);
        hashing.join().map_err(|_| "hashing it failed".to_owned())
    })
}

const CHANGED: &str = "its length has changed while it was being copied";

fn full_or(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the store's file system is full, or the store's quota there".into()
        }
        _ => format!("cannot be written: {cause}"),
    }
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn copied(bytes: &[u8], size: u64) -> (Result<Digest, Refusal>, Vec<u8>) {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(bytes).unwrap();
        let to = tempfile::NamedTempFile::new().unwrap();
        let (line, _caller) = Channel::pair().unwrap();
        // Tests have threads, and a process with threads must not fork.
        let (ours, theirs) = Channel::pair().unwrap();
        let done = work(&from, size, to.as_file(), &theirs).map_err(|cause| Refusal::new(Kind::Store, "a", cause));
        drop((ours, line));
        (done, std::fs::read(to.path()).unwrap())
    }

    #[test]
    fn what_is_written_is_what_is_hashed() {
        for length in [0, 1, BUFFER - 1, BUFFER, 9 * BUFFER + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let (digest, found) = copied(&bytes, length as u64);
            let mut hash = Hasher::default();
            hash.update(&bytes);
            assert!(found == bytes && digest.unwrap() == hash.finish(), "{length}");
        }
    }

    #[test]
    fn a_file_that_grows_or_shrinks_is_refused() {
        for size in [9, 11] {
            let line = copied(b"0123456789", size).0.unwrap_err().line();
            assert!(line.contains("its length has changed"), "{line}");
        }
    }
}
