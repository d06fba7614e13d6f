//! Downloads blobs from a registry or its mirrors into the cache, several at once.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use coracle::report::{Kind, Refusal};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header;

use super::cache::{Cache, Claim, Partial};
use super::connection::Connection;
use super::fault::{Fault, Patience};
use super::manifest::Part;
use super::progress::Progress;

/// Number of simultaneous downloads.
const AT_ONCE: usize = 4;
/// Number of bytes after which faults are counted anew.
const ENOUGH: u64 = 1 << 20;
/// Number of bytes that are read at once.
const CHUNK: usize = 1 << 17;

/// Source and target of blobs.
pub struct Download<'a> {
    /// Name of the image, for messages.
    pub object: &'a str,
    /// Places that are asked for the blobs, in order; not empty.
    pub places: &'a [Connection<'a>],
    /// Cache for the blobs.
    pub cache: &'a Cache,
    /// Progress for the user.
    pub progress: &'a Progress,
    stop: AtomicBool,
}

impl<'a> Download<'a> {
    /// Makes a download of an image's blobs.
    pub fn of(object: &'a str, places: &'a [Connection<'a>], cache: &'a Cache, progress: &'a Progress) -> Self {
        Self { object, places, cache, progress, stop: AtomicBool::new(false) }
    }

    /// Downloads all blobs, each once.
    pub fn all(&self, parts: &[&Part]) -> Result<(), Refusal> {
        let queue = Mutex::new(parts.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let first = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(parts.len()) {
                scope.spawn(|| {
                    while let Some(part) = next() {
                        let Err(refusal) = self.one(part) else { continue };
                        // Later errors of the other threads only say that they were stopped.
                        if !self.stop.swap(true, Ordering::Relaxed) {
                            *first.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
                        }
                        return;
                    }
                });
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Downloads one blob.
    pub fn one(&self, part: &Part) -> Result<PathBuf, Refusal> {
        let waiting = || self.progress.note("waits for another process that downloads the same");
        let mut partial = match self.cache.claim(part, waiting)? {
            Claim::Whole(path) => {
                self.progress.found(part.size);
                return Ok(path);
            }
            Claim::Partial(partial) => partial,
        };
        self.progress.found(partial.length());
        for (at, place) in self.places.iter().enumerate() {
            match self.fill(place, part, &mut partial) {
                Ok(()) => return partial.publish().map_err(|error| self.cache.refuse(&error)),
                Err(fault) if at + 1 < self.places.len() && !fault.is_local() => {
                    self.progress.note(&format!("{}; going on elsewhere", fault.cause()));
                }
                Err(fault) => {
                    let refusal = fault.refusal(self.object);
                    if refusal.kind == Kind::Digest {
                        partial.discard().map_err(|error| self.cache.refuse(&error))?;
                    }
                    return Err(refusal);
                }
            }
        }
        Err(Refusal::new(Kind::Internal, self.object, "there is no place to download from"))
    }

    /// Downloads the missing bytes of a blob from one place, and checks the whole.
    fn fill(&self, place: &Connection<'_>, part: &Part, partial: &mut Partial) -> Result<(), Fault> {
        let mut doubtful = partial.length() > 0;
        let mut patience = Patience::default();
        loop {
            let before = partial.length();
            match self.attempt(place, part, partial) {
                Ok(()) if partial.is(&part.digest) => return Ok(()),
                Ok(()) => {
                    self.restart(partial)?;
                    if !doubtful {
                        let cause = format!("what {} gives out as {} is something else", place.label(), part.digest);
                        return Err(Fault::new(Kind::Digest, cause));
                    }
                    // The earlier bytes may have been wrong, and not the new ones.
                    doubtful = false;
                }
                Err(fault) => {
                    if partial.length() >= before.saturating_add(ENOUGH) {
                        patience.renew();
                    }
                    patience.spend(fault)?;
                }
            }
        }
    }

    fn restart(&self, partial: &mut Partial) -> Result<(), Fault> {
        self.progress.lose(partial.length());
        partial.restart().map_err(|error| Fault::here(self.cache.refuse(&error)))
    }

    /// Sends one request.
    fn attempt(&self, place: &Connection<'_>, part: &Part, partial: &mut Partial) -> Result<(), Fault> {
        if partial.length() == part.size {
            return Ok(());
        }
        let from = partial.length();
        let mut response = place.get(&format!("blobs/{}", part.digest), "*/*", from)?;
        let from = match goes_on(&response, from) {
            true => from,
            false => {
                // The place sends the whole blob, in spite of the requested range.
                self.restart(partial)?;
                if response.status() == StatusCode::PARTIAL_CONTENT {
                    return Err(Fault::passing(format!("{} gives out another part than was asked for", place.label())));
                }
                0
            }
        };
        let wrong = |length: u64| {
            let cause =
                format!("what {} gives out as {} has {length} bytes, not {}", place.label(), part.digest, part.size);
            Fault::new(Kind::Digest, cause)
        };
        if let Some(length) = response.content_length().map(|length| length.saturating_add(from))
            && length != part.size
        {
            return Err(wrong(length));
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::new(Kind::Internal, "another part of it failed"));
            }
            let read = response.read(&mut buffer);
            let count = read.map_err(|error| match is_timeout(&error) {
                true => Fault::passing(format!("{} has stopped giving it out", place.label())),
                false => Fault::passing(format!("{}: the connection broke: {error}", place.label())),
            })?;
            if count == 0 {
                break;
            }
            let length = partial.length() + count as u64;
            if length > part.size {
                return Err(wrong(length));
            }
            partial.append(&buffer[..count]).map_err(|error| Fault::here(self.cache.refuse(&error)))?;
            self.progress.add(count as u64);
        }
        match partial.length() == part.size {
            true => Ok(()),
            false => Err(Fault::passing(format!(
                "{} has given out {} of {} bytes",
                place.label(),
                partial.length(),
                part.size
            ))),
        }
    }
}

/// True if an answer begins at the requested byte (RFC 9110, 14.4).
fn goes_on(response: &Response, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match response.status() {
        StatusCode::PARTIAL_CONTENT => range.is_some_and(|range| range.starts_with(&format!("bytes {from}-"))),
        _ => from == 0,
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    error.kind() == std::io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout)
}
