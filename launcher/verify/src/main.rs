//! Runs `coracle-verify`, which reads the bytes of an image, and keys, for the launcher and for `coracle verify`.
//!
//! It reads one question from the socket on its standard input, and answers it there. Only its child process parses
//! foreign data.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Identity, Received};
use coracle_launcher::children::ask::{self, Failure};
use coracle_launcher::children::verify::{Look, Need, Question, Reply};
use coracle_launcher::image::{self, digest};
use coracle_verify::signature::{self, Keyring};
use coracle_verify::{sandbox, structure};

/// Time limit for the messages of a question, which the caller sends at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Exit status for an invalid socket or question.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    // No process waits for the answer after the end of the launcher.
    let channel = match sys::die_with_parent().and_then(|()| Channel::of_standard_input()) {
        Ok(channel) => channel,
        Err(error) => return wrong(&error.to_string()),
    };
    let Some((question, files)) = question(&channel) else { return wrong("no question on standard input") };
    let limit = Duration::from_millis(question.milliseconds);
    let reply = answer(&question, &files, limit);
    let sent = ask::answer(&channel, reply.as_ref(), &[], Instant::now() + PATIENCE);
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("coracle-verify: {why}: coracle verify is the command for people");
    ExitCode::from(WRONG)
}

/// Reads a question, the image and the key files.
fn question(channel: &Channel) -> Option<(Question, Vec<File>)> {
    let deadline = Instant::now() + PATIENCE;
    let (question, fds) = ask::next_question::<Question>(channel, deadline)?;
    let mut files: Vec<File> = fds.into_iter().map(File::from).collect();
    while files.len() < 1 + question.keys.len() {
        let Ok(Received::Packet(packet)) = channel.receive(deadline) else { return None };
        files.push(File::from(packet.fds.into_iter().next()?));
    }
    Some((question, files))
}

fn answer(question: &Question, files: &[File], limit: Duration) -> Result<Reply, Refusal> {
    let object = question.object.as_str();
    let now = SystemTime::now();
    let user = question.user.as_ref();
    let user = user.map(|(uid, gid, groups)| Identity { uid: *uid, gid: *gid, groups: groups.clone() });
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let bytes = sandbox::compute(user.as_ref(), &fds, limit, |files| {
        let reply =
            files.split_first().ok_or_else(|| ask::garbled(object)).and_then(|(image, keys)| match question.look {
                Look::Format => format(object, image),
                Look::Structure => {
                    structure::inspect(object, image).map(|text| Reply { structure: Some(text), ..Reply::default() })
                }
                Look::Signatures { need, digest } => signatures(question, (image, keys), need, digest, now),
            });
        ask::to_bytes(reply.as_ref())
    });
    let bytes = bytes.map_err(|refusal| Refusal { object: object.to_owned(), ..refusal })?;
    let reply: Reply = ask::from_bytes(&bytes).map_err(|failure| match failure {
        Failure::Refused(refusal) => refusal,
        _ => ask::garbled(object),
    })?;
    reply.checked().ok_or_else(|| ask::garbled(object))
}

fn format(object: &str, image: &File) -> Result<Reply, Refusal> {
    let mut start = vec![0; image::START];
    let length = image.read_at(&mut start, 0).unwrap_or(0);
    start.truncate(length);
    match image::Container::of(&start) {
        Some(_) => Ok(Reply::default()),
        None => Err(image::Error::Unknown.refuse(object)),
    }
}

fn signatures(
    question: &Question,
    (image, keys): (&File, &[File]),
    need: Option<Need>,
    digest: bool,
    now: SystemTime,
) -> Result<Reply, Refusal> {
    let object = question.object.as_str();
    let mut reply = Reply::default();
    if let Some(need) = need {
        let keyring = Keyring::read(keys).map_err(|(index, error)| {
            let name = question.keys.get(index).map_or("", String::as_str);
            Refusal::new(Kind::Usage, name, error.to_string())
        })?;
        reply.signers = match signature::verify(image, question.length, &keyring, now) {
            Err(error) if need == Need::WhoeverSigned && error.is_absence() => Vec::new(),
            signers => signers.map_err(|error| error.refuse(object))?,
        };
    }
    if digest {
        let unreadable = |cause| Refusal::new(Kind::of_reading(&cause), object, format!("cannot be read: {cause}"));
        reply.digest = Some(digest::compute(image).map_err(unreadable)?.to_string());
    }
    Ok(reply)
}
