//! Reads the bytes of a layer's tar file with any compression.
//!
//! A thread of its own decompresses them, beside the one that makes files of them. The digest is computed on the way.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use coracle::report::{Kind, Refusal};
use nix::fcntl::OFlag;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::layer::{Layer, Named};
use super::limits;
use crate::sources::digest::Sum;

/// Number of bytes that are read from the file at once.
const INPUT: usize = 256 << 10;
/// Number of bytes that one thread hands to the other at once, and number of such parts that may wait.
const PART: usize = 256 << 10;
const WAITING: usize = 16;
/// Memory limit of xz, in KiB: `xz -9` needs 65 MiB, and a dictionary of 1 GiB would exceed the limit.
const XZ_MEMORY: u32 = 256 << 10;

/// Lets `work` read the tar file of `layer`. Returns its result and the digest of the whole stream, to its end.
pub fn with_tar<T>(
    layer: &Layer,
    named: &Named,
    work: impl FnOnce(&mut Stream) -> Result<T, Refusal>,
) -> Result<(T, String), Refusal> {
    let wrong = |error: io::Error| named.refuse(&error);
    let opened = coracle::sys::open_untrusted(&layer.file, OFlag::O_RDONLY);
    let mut file: File = opened.map_err(|error| named.refusal(Kind::of_reading(&error), &error.to_string()))?.into();
    if !file.metadata().map_err(wrong)?.is_file() {
        return Err(named.refusal(Kind::ImageType, "is no file"));
    }
    file.seek(SeekFrom::Start(layer.offset)).map_err(wrong)?;
    let input = Whole { inner: file, left: layer.size };
    std::thread::scope(|scope| {
        let mut stream = Stream::start(scope, input, limits::unpacked(layer.size));
        let done = work(&mut stream)?;
        // Bytes behind the tar file belong to its digest.
        let mut rest = vec![0; PART];
        while stream.read(&mut rest).map_err(wrong)? != 0 {}
        Ok((done, stream.digest()))
    })
}

/// Uncompressed bytes.
pub struct Stream {
    parts: Receiver<io::Result<Vec<u8>>>,
    part: Vec<u8>,
    at: usize,
    ended: bool,
    taken: u64,
    limit: u64,
    sum: Sum,
}

impl Stream {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, input: Whole, limit: u64) -> Self {
        let (sender, parts) = sync_channel(WAITING);
        scope.spawn(move || decompress(input, &sender));
        Self { parts, part: Vec::new(), at: 0, ended: false, taken: 0, limit, sum: Sum::sha256() }
    }

    fn digest(self) -> String {
        self.sum.finish().to_string()
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.part.len() {
            if self.ended {
                return Ok(0);
            }
            let Ok(part) = self.parts.recv() else {
                self.ended = true;
                return Ok(0);
            };
            self.part = part?;
            self.at = 0;
            self.sum.update(&self.part);
            self.taken = self.taken.saturating_add(self.part.len() as u64);
            if self.taken > self.limit {
                return Err(limits::bomb());
            }
        }
        let count = out.len().min(self.part.len() - self.at);
        out[..count].copy_from_slice(&self.part[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Fills parts until the stream ends, or the receiver is dropped.
fn decompress(input: Whole, parts: &SyncSender<io::Result<Vec<u8>>>) {
    let mut reader = match reader(BufReader::with_capacity(INPUT, input)) {
        Ok(reader) => reader,
        Err(error) => {
            let _ = parts.send(Err(error));
            return;
        }
    };
    loop {
        let mut part = Vec::with_capacity(PART);
        match reader.by_ref().take(PART as u64).read_to_end(&mut part) {
            Ok(0) => return,
            Ok(_) => {
                if parts.send(Ok(part)).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = parts.send(Err(error));
                return;
            }
        }
    }
}

/// True if `start` is the beginning of gzip (RFC 1952), zstd (RFC 8878), xz or bzip2.
pub fn is_compressed(start: &[u8]) -> bool {
    [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ\0", b"BZh"].iter().any(|magic| start.starts_with(magic))
}

/// Decompressor of a stream, selected by its first bytes.
pub fn reader<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = input.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(Gzip { member: Some(flate2::bufread::GzDecoder::new(input)) })
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
        Box::new(Zstd { input, decoder: FrameDecoder::new() })
    } else if start.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY))
    } else if start.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(input))
    } else {
        Box::new(input)
    })
}

/// Members of a gzip stream. Zeros behind the last one are the padding of a tape or disk (gzip(1)); flate2 takes them
/// for a damaged member.
struct Gzip<R> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let input = self.member.take().map(flate2::bufread::GzDecoder::into_inner);
            let Some(mut input) = input else { break };
            if !skip_zeros(&mut input)? {
                self.member = Some(flate2::bufread::GzDecoder::new(input));
            }
        }
        Ok(0)
    }
}

/// Skips zeros. Returns true if the stream ends behind them; other bytes are refused.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    let mut skipped = false;
    loop {
        let part = input.fill_buf()?;
        let zeros = part.iter().take_while(|byte| **byte == 0).count();
        match (part.len(), zeros) {
            (0, _) => return Ok(true),
            (_, 0) if skipped => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes stand behind the end of the stream"));
            }
            (_, 0) => return Ok(false),
            _ => input.consume(zeros),
        }
        skipped = true;
    }
}

/// True for the start of a frame without contents (RFC 8878, 3.1.2).
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Frames of a zstd stream; the decoder reads a single one.
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBytes;
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(out);
            }
            if !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.input, UptoBytes(PART)).map_err(invalid)?;
                continue;
            }
            if skip_zeros(&mut self.input)? {
                return Ok(0);
            }
            match self.decoder.init(&mut self.input) {
                Ok(()) => {}
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.input.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(error)),
            }
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Part of a file that must be complete.
struct Whole {
    inner: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut out[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain() -> Vec<u8> {
        (0..700_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect()
    }

    fn read(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader(BufReader::new(stream))?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn streams_of_several_parts_are_read_to_their_end() {
        let plain = plain();
        let (one, two) = plain.split_at(1_234_567);
        assert_eq!(read(&[gzip(one), gzip(two)].concat()).unwrap(), plain);
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"words"].concat();
        assert_eq!(read(&[skippable.clone(), zstd(one), zstd(two), skippable].concat()).unwrap(), plain);
        assert_eq!(read(one).unwrap(), one);
    }

    #[test]
    fn zeros_behind_a_stream_are_padding_and_other_bytes_are_not() {
        let plain = plain();
        let padded = |stream: Vec<u8>, zeros: usize| [stream, vec![0; zeros]].concat();
        for zeros in [1, 512, 1_000_000] {
            assert_eq!(read(&padded(gzip(&plain), zeros)).unwrap(), plain, "{zeros}");
            assert_eq!(read(&padded(zstd(&plain), zeros)).unwrap(), plain, "{zeros}");
        }
        for rest in [&b"rest"[..], b"\0\0rest"] {
            assert!(read(&[gzip(&plain), rest.to_vec()].concat()).is_err(), "{rest:?}");
            assert!(read(&[zstd(&plain), rest.to_vec()].concat()).is_err(), "{rest:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_is_an_error() {
        for stream in [gzip(&plain()), zstd(&plain())] {
            for keep in [stream.len() - 1, stream.len() / 2, 12] {
                assert!(read(&stream[..keep]).is_err(), "{keep} of {}", stream.len());
            }
        }
    }
}
