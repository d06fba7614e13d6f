//! Formats a refusal for the user and for the log.
#![forbid(unsafe_code)]

use std::fmt;

use nix::errno::Errno;

/// The closed list of reasons for which a task does not start. docs/messages.md explains each to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An option or a variable is wrong.
    Usage,
    /// No such image exists.
    ImageMissing,
    /// The user may not read the image.
    ImageUnreadable,
    /// The path leads to an object that cannot be an image: a directory, a FIFO, a device.
    ImageType,
    /// The file is no image, or a damaged one.
    ImageFormat,
    /// The image is for another processor.
    ImageArch,
    /// The image is encrypted.
    ImageEncrypted,
    /// The image does not have the requested digest.
    Digest,
    /// The image does not have the required signature.
    Signature,
    /// A bind cannot be made.
    Bind,
    /// The host's MPI does not fit the image.
    Mpi,
    /// The job's working directory is not available inside.
    Workdir,
    /// The site does not allow it.
    Policy,
    /// The store cannot keep or return an image.
    Store,
    /// A registry does not return an image.
    Registry,
    /// The source of an image asks for something that cannot be done.
    Build,
    /// The site's configuration is wrong.
    Config,
    /// Time limit exceeded.
    Timeout,
    /// The node lacks something or a system call failed.
    System,
    /// An internal error of Coracle.
    Internal,
}

impl Kind {
    /// All kinds, in the order of docs/messages.md.
    pub const ALL: [Self; 20] = [
        Self::Usage,
        Self::ImageMissing,
        Self::ImageUnreadable,
        Self::ImageType,
        Self::ImageFormat,
        Self::ImageArch,
        Self::ImageEncrypted,
        Self::Digest,
        Self::Signature,
        Self::Bind,
        Self::Mpi,
        Self::Workdir,
        Self::Policy,
        Self::Store,
        Self::Registry,
        Self::Build,
        Self::Config,
        Self::Timeout,
        Self::System,
        Self::Internal,
    ];

    /// Returns the word in brackets at the end of a message; scripts may rely on it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::ImageMissing => "image-missing",
            Self::ImageUnreadable => "image-unreadable",
            Self::ImageType => "image-type",
            Self::ImageFormat => "image-format",
            Self::ImageArch => "image-arch",
            Self::ImageEncrypted => "image-encrypted",
            Self::Digest => "digest",
            Self::Signature => "signature",
            Self::Bind => "bind",
            Self::Mpi => "mpi",
            Self::Workdir => "workdir",
            Self::Policy => "policy",
            Self::Store => "store",
            Self::Registry => "registry",
            Self::Build => "build",
            Self::Config => "config",
            Self::Timeout => "timeout",
            Self::System => "system",
            Self::Internal => "internal",
        }
    }

    /// Returns the kind of an error in reading an image. A lack of descriptors or memory in the process or the node is
    /// no error of the image.
    pub fn of_reading(error: &impl ErrorNumber) -> Self {
        match error.number().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => Self::System,
            _ => Self::ImageUnreadable,
        }
    }

    /// Returns the kind that [`Kind::word`] names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// An error that may have the kernel's number (errno(3)).
pub trait ErrorNumber {
    /// Returns the number.
    fn number(&self) -> Option<i32>;
}

impl ErrorNumber for Errno {
    fn number(&self) -> Option<i32> {
        Some(*self as i32)
    }
}

impl ErrorNumber for std::io::Error {
    fn number(&self) -> Option<i32> {
        self.raw_os_error()
    }
}

impl ErrorNumber for crate::sys::Error {
    fn number(&self) -> Option<i32> {
        self.errno().number()
    }
}

/// Refusal of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Object as the user wrote it.
    pub object: String,
    /// Cause: lower case, no full stop.
    pub cause: String,
    /// Kind of the error.
    pub kind: Kind,
    /// Advice, if there is some.
    pub hint: Option<String>,
}

impl Refusal {
    /// Makes a refusal without a hint.
    pub fn new(kind: Kind, object: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { object: object.into(), cause: cause.into(), kind, hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Makes a refusal from a failed system call; `object` is the object of the operation.
    pub fn system(object: impl Into<String>, error: &crate::sys::Error) -> Self {
        Self::new(Kind::System, object, error.to_string())
    }

    /// Returns `coracle: OBJECT: cause [kind]`, the first line of every refusal.
    pub fn line(&self) -> String {
        clean(&format!("coracle: {}: {} [{}]", self.object, self.cause, self.kind.word()))
    }

    /// Returns `coracle: hint: …`, the second line of some refusals.
    pub fn hint_line(&self) -> Option<String> {
        self.hint.as_ref().map(|hint| clean(&format!("coracle: hint: {hint}")))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.line())?;
        if let Some(hint) = self.hint_line() {
            write!(out, "\n{hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Maximum length of a printed line, in bytes: a name of 4,095 bytes twice would hide the cause.
const LINE: usize = 1000;

/// True for a character that must not reach a terminal or a reader of a log unchanged.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes all of an image's text safe for a terminal: keeps lines and tabs, and no other control characters.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) && !matches!(character, '\n' | '\t') {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Makes a text of a user, an image or a file name safe for a terminal and a log: one line, no control characters,
/// bounded length. Marks the place of what was cut out of its middle.
pub fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    if safe.len() <= LINE {
        return safe;
    }
    let head = safe.floor_char_boundary(LINE / 2);
    let tail = safe.ceil_char_boundary(safe.len() - LINE / 2);
    format!("{}…{}", &safe[..head], &safe[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_and_at_most_one_hint() {
        let refusal = Refusal::new(Kind::ImageMissing, "/img/a.sif", "no such file").hint("look again");
        assert_eq!(refusal.to_string(), "coracle: /img/a.sif: no such file [image-missing]\ncoracle: hint: look again");
    }

    #[test]
    fn what_a_process_lacks_is_not_the_images_fault() {
        let kind = |errno: Errno| {
            let io = Kind::of_reading(&std::io::Error::from(errno));
            assert_eq!(
                (Kind::of_reading(&errno), Kind::of_reading(&crate::sys::Error::new("read()", errno))),
                (io, io)
            );
            io
        };
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert_eq!(kind(errno), Kind::System, "{errno}");
        }
        for errno in [Errno::EACCES, Errno::EIO, Errno::ESTALE, Errno::ENOENT] {
            assert_eq!(kind(errno), Kind::ImageUnreadable, "{errno}");
        }
        assert_eq!(Kind::of_reading(&std::io::Error::other("x")), Kind::ImageUnreadable);
    }

    #[test]
    fn control_characters_and_length_cannot_reach_a_terminal() {
        let hostile = format!("/a\x1b[2J\n{}\u{202e}x", "y".repeat(5000));
        let line = Refusal::new(Kind::Usage, hostile, "cause").line();
        assert!(line.starts_with("coracle: /a\\u{1b}[2J\\n"), "{line}");
        assert!(line.ends_with("\\u{202e}x: cause [usage]") && line.len() <= LINE + 3, "{line}");
    }

    #[test]
    fn a_plain_text_keeps_its_lines_and_nothing_that_steers_a_terminal() {
        assert_eq!(plain("a\tb\n\u{1b}[2Jc\r\u{9b}\u{202e}"), "a\tb\n\\u{1b}[2Jc\\r\\u{9b}\\u{202e}");
    }

    #[test]
    fn every_kind_is_found_by_its_word_and_documented() {
        let manual = include_str!("../docs/messages.md");
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
            assert!(manual.contains(&format!("| `{}` |", kind.word())), "docs/messages.md lacks {}", kind.word());
        }
        assert_eq!(
            manual.matches("\n| `").count(),
            Kind::ALL.len(),
            "docs/messages.md explains a kind that is not there"
        );
    }
}
