//! Questions to child processes, and their answers: JSON, with descriptors beside it.
//!
//! One message is a question, one message is its answer: a result or a refusal. A child process that is forked for one
//! question knows it, and only answers. The child process may be compromised: each answer has a size limit, bytes that
//! cannot be decoded are a failure, and the text of a refusal contains no terminal control characters. The asking
//! process must also check that the result and its descriptors fit the question.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Instant;

use coracle::report::{Kind, Refusal, clean};
use coracle::sys::{self, Channel, Packet, Received};
use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Limit on an encoded question or answer, in bytes: 10,000 group ids fit. A channel takes no longer packet.
pub const LIMIT: usize = 160 * 1024;

/// Answer of a child process to one question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Found(T),
    Refused(Refused),
}

/// A [`Refusal`], encoded.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    kind: String,
    object: String,
    cause: String,
    hint: Option<String>,
}

impl From<&Refusal> for Refused {
    fn from(Refusal { kind, object, cause, hint }: &Refusal) -> Self {
        Self { kind: kind.word().to_owned(), object: object.clone(), cause: cause.clone(), hint: hint.clone() }
    }
}

/// Result of a question, with its descriptors.
#[derive(Debug)]
pub struct Reply<T> {
    /// The result, decoded and not checked.
    pub found: T,
    /// The descriptors of the message, of any number and type.
    pub fds: Vec<OwnedFd>,
}

/// Reason why a question has no result.
#[derive(Debug)]
pub enum Failure {
    /// The child process refuses.
    Refused(Refusal),
    /// No answer came before the deadline.
    Late,
    /// The child process has ended.
    Ended,
    /// The answer cannot be decoded, or is longer than [`LIMIT`].
    Garbled,
    /// A system call failed.
    System(sys::Error),
}

impl From<sys::Error> for Failure {
    fn from(error: sys::Error) -> Self {
        match error.errno() {
            Errno::ETIMEDOUT => Self::Late,
            // The peer has closed its end.
            Errno::EPIPE => Self::Ended,
            _ => Self::System(error),
        }
    }
}

/// Asks the process at the other end of `channel`.
pub fn ask<Question: Serialize, Found: DeserializeOwned>(
    channel: &Channel,
    question: &Question,
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<Reply<Found>, Failure> {
    send(channel, question, fds, deadline)?;
    decode(channel.receive(deadline))
}

/// Sends a question whose answer is received later.
pub fn send<Question: Serialize>(
    channel: &Channel,
    question: &Question,
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> Result<(), Failure> {
    let failed = |errno| Failure::System(sys::Error::new("encoding a question", errno));
    let bytes = serde_json::to_vec(question).map_err(|_| failed(Errno::EINVAL))?;
    if bytes.len() > LIMIT {
        return Err(failed(Errno::EMSGSIZE));
    }
    Ok(channel.send(&bytes, fds, deadline)?)
}

/// Result in a received answer.
pub fn decode<Found: DeserializeOwned>(received: sys::Result<Received>) -> Result<Reply<Found>, Failure> {
    match received {
        Ok(Received::Packet(Packet { data, fds, .. })) => Ok(Reply { found: from_bytes(&data)?, fds }),
        Ok(Received::Closed) => Err(Failure::Ended),
        Err(error) if error.errno() == Errno::EMSGSIZE => Err(Failure::Garbled),
        Err(error) => Err(error.into()),
    }
}

/// Next question at the other end of `channel`, with its descriptors; nothing when no process can ask any more, after
/// the deadline, and for bytes that are no question.
pub fn next_question<Question: DeserializeOwned>(
    channel: &Channel,
    deadline: Instant,
) -> Option<(Question, Vec<OwnedFd>)> {
    receive_question(channel, deadline).ok().flatten()
}

/// Like [`next_question`]; an error (ETIMEDOUT) if none came before the deadline.
pub fn receive_question<Question: DeserializeOwned>(
    channel: &Channel,
    deadline: Instant,
) -> sys::Result<Option<(Question, Vec<OwnedFd>)>> {
    let Received::Packet(Packet { data, fds, .. }) = channel.receive(deadline)? else { return Ok(None) };
    let question = serde_json::from_slice(&data).ok().filter(|_| data.len() <= LIMIT);
    Ok(question.map(|question| (question, fds)))
}

/// Answers a question. A result that cannot be encoded in [`LIMIT`] bytes becomes a refusal.
pub fn answer<Found: Serialize>(
    channel: &Channel,
    result: Result<&Found, &Refusal>,
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
) -> sys::Result<()> {
    channel.send(&to_bytes(result), fds, deadline)
}

/// Encodes an answer; one that cannot be encoded in [`LIMIT`] bytes becomes a refusal.
pub fn to_bytes<Found: Serialize>(result: Result<&Found, &Refusal>) -> Vec<u8> {
    let answer = match result {
        Ok(found) => Answer::Found(found),
        Err(refusal) => Answer::Refused(Refused::from(refusal)),
    };
    let bytes = serde_json::to_vec(&answer).ok().filter(|bytes| bytes.len() <= LIMIT);
    bytes.unwrap_or_else(|| {
        // A path that is not UTF-8 and no `OsText` has no encoding.
        let refusal = Refusal::new(Kind::Internal, "", format!("the answer cannot be encoded in {LIMIT} bytes"));
        serde_json::to_vec(&Answer::<()>::Refused(Refused::from(&refusal))).unwrap_or_default()
    })
}

/// Decodes an answer.
pub fn from_bytes<Found: DeserializeOwned>(bytes: &[u8]) -> Result<Found, Failure> {
    if bytes.len() > LIMIT {
        return Err(Failure::Garbled);
    }
    match serde_json::from_slice(bytes) {
        Ok(Answer::Found(found)) => Ok(found),
        Ok(Answer::Refused(refused)) => {
            let kind = Kind::from_word(&refused.kind).ok_or(Failure::Garbled)?;
            let refusal = Refusal::new(kind, clean(&refused.object), clean(&refused.cause));
            Err(Failure::Refused(Refusal { hint: refused.hint.as_deref().map(clean), ..refusal }))
        }
        Err(_) => Err(Failure::Garbled),
    }
}

/// Refusal of `object` for an answer that cannot be decoded or does not fit its question.
pub fn garbled(object: &str) -> Refusal {
    Refusal::new(Kind::Internal, object, "the process that looked at it gave an answer that makes no sense")
}

/// Bytes of the kernel, such as a path: a string if they are UTF-8, a list of numbers otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OsText(pub OsString);

impl OsText {
    /// The bytes as a path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for OsText {
    fn from(text: &T) -> Self {
        Self(text.as_ref().to_owned())
    }
}

impl Serialize for OsText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.as_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Encoded {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Self(match Encoded::deserialize(deserializer)? {
            Encoded::Text(text) => text.into(),
            Encoded::Bytes(bytes) => OsString::from_vec(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn found(bytes: &[u8]) -> Result<String, Failure> {
        from_bytes(bytes)
    }

    #[test]
    fn answers_survive_the_journey() {
        assert_eq!(found(&to_bytes(Ok(&"all"))).unwrap(), "all");
        let refusal = Refusal::new(Kind::Policy, "o", "c").hint("h");
        let back = found(&to_bytes::<String>(Err(&refusal)));
        assert!(matches!(back, Err(Failure::Refused(back)) if back == refusal));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let unknown = br#"{"refused":{"kind":"none","object":"o","cause":"c","hint":null}}"#;
        let deep = b"[".repeat(LIMIT);
        for wrong in [&b""[..], b"x", b"{}", br#"{"found":1}"#, br#"{"found":"a"}x"#, unknown, &deep] {
            assert!(matches!(found(wrong), Err(Failure::Garbled)), "{wrong:?}");
        }
        let hostile = br#"{"refused":{"kind":"policy","object":"o","cause":"\u001b[2Jc","hint":"\n"}}"#;
        let Err(Failure::Refused(refusal)) = found(hostile) else { panic!("no refusal") };
        assert!(!refusal.cause.contains('\u{1b}') && !refusal.hint.unwrap().contains('\n'));
    }

    #[test]
    fn messages_have_a_limit() {
        let long = "x".repeat(LIMIT);
        assert!(
            matches!(found(&to_bytes(Ok(&long))), Err(Failure::Refused(refusal)) if refusal.kind == Kind::Internal)
        );
        let whole = serde_json::to_vec(&Answer::Found(&long)).unwrap();
        assert!(matches!(found(&whole), Err(Failure::Garbled)));
        let (ours, _theirs) = Channel::pair().unwrap();
        let asked = ask::<_, String>(&ours, &long, &[], Instant::now() + Duration::from_secs(10));
        assert!(matches!(asked, Err(Failure::System(error)) if error.errno() == Errno::EMSGSIZE));
    }

    #[test]
    fn bytes_of_the_kernel_survive_the_journey() {
        for bytes in [&b""[..], b"/a b", b"/\xff\xfe", b"/\xc3\xa4\0\n\"", b"\x80"] {
            let text = OsText::from(OsStr::from_bytes(bytes));
            assert_eq!(from_bytes::<OsText>(&to_bytes(Ok(&text))).unwrap(), text, "{bytes:?}");
        }
        for wrong in [&br#"{"found":[256]}"#[..], br#"{"found":[-1]}"#, br#"{"found":{}}"#] {
            assert!(matches!(from_bytes::<OsText>(wrong), Err(Failure::Garbled)));
        }
    }

    #[test]
    fn questions_and_answers_have_descriptors() {
        let far = Instant::now() + Duration::from_secs(10);
        let (ours, theirs) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let asked = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (question, fds) = next_question::<u32>(&theirs, far).unwrap();
                answer(&theirs, Ok(&(question + 1)), &[fds[0].as_fd(), fds[0].as_fd()], far).unwrap();
            });
            ask::<u32, u32>(&ours, &7, &[file.as_fd()], far).unwrap()
        });
        assert_eq!((asked.found, asked.fds.len()), (8, 2));
        ours.send(b"{", &[], far).unwrap();
        assert!(next_question::<u32>(&theirs, far).is_none());
        drop(theirs);
        assert!(matches!(ask::<u32, u32>(&ours, &7, &[], far), Err(Failure::Ended)));
    }
}
