//! Questions to the opener and its answers, which the asking process checks.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::children::ask::{OsText, Reply};
use crate::children::{glibc, mpi_fit};
use crate::image::Image;
use crate::mpi::Fit;
use crate::plan::Shape;
use coracle::request::Digest;

use super::{Account, GROUPS};

/// Question of the launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Opens and identifies an image, and keeps it open. Answer: [`Answer::Image`].
    OpenImage(OsText),
    /// Digest of the last image. Answer: [`Answer::Digest`].
    Digest,
    /// Opens paths of the node with O_PATH. One answer for each path: [`Answer::Opened`] or [`Answer::Failed`].
    OpenSources(Vec<OsText>),
    /// Opens a path below the directory that comes with the question, with O_PATH. Answer: as above.
    OpenBeneath(OsText),
    /// Opens such a path for reading. Answer: as above.
    ReadBeneath(OsText),
    /// Enters such a directory. Answer: [`Answer::Done`].
    Enter(OsText),
    /// Entries of the user database for the user and these groups. Answer: [`Answer::Account`].
    Account(Vec<u32>),
    /// User id of a name. Answer: [`Answer::Uid`].
    Uid(String),
    /// Fit of an MPI profile to the image that comes with the question. Answer: [`Answer::Fit`].
    FitMpi(mpi_fit::Question),
    /// Version of the C library of the image that comes with the question. Answer: [`Answer::Glibc`].
    Glibc,
    /// Attaches the last image to the loop device that comes with the question. Answer: [`Answer::Done`] or
    /// [`Answer::Failed`].
    ConfigureLoop {
        /// First byte of the image.
        offset: u64,
        /// Number of bytes.
        size: u64,
    },
}

/// Answer of the opener, which may be compromised.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The open image is the descriptor.
    Image {
        /// Text of [`Image::to_words`].
        words: String,
        /// Length of the file, in bytes.
        length: u64,
    },
    /// A digest, as text.
    Digest(String),
    /// The open file is the descriptor.
    Opened {
        /// True for a directory.
        directory: bool,
    },
    /// Error number of the call.
    Failed(i32),
    /// The work is done.
    Done,
    /// Entries of the user database.
    Account {
        /// Line of the user; empty if there is none.
        passwd: String,
        /// Home directory; empty if there is none.
        home: OsText,
        /// Lines of the groups.
        groups: Vec<String>,
    },
    /// A user id, if the user exists.
    Uid(Option<u32>),
    /// Fit of a profile.
    Fit(Fit),
    /// A version of glibc, if the image has one.
    Glibc(Option<String>),
}

/// Checks of a reply against its question; `None` for a reply of another form. A reply has exactly the descriptors that
/// its question is answered with: others are closed with it.
impl Reply<Answer> {
    /// Image, length of its file, and the file.
    pub(super) fn into_image(self) -> Option<(Image, u64, File)> {
        match (self.found, only(self.fds)) {
            (Answer::Image { words, length }, Some(file)) => {
                Some((Image::from_words(&words, length)?, length, File::from(file)))
            }
            _ => None,
        }
    }

    /// Descriptor and its shape, or the error of open(2).
    pub(super) fn into_opened(self) -> Option<Result<(OwnedFd, Shape), Errno>> {
        match (self.found, self.fds.is_empty()) {
            (Answer::Failed(number), true) => Some(Err(Errno::from_raw(number))),
            (Answer::Opened { directory }, false) => {
                Some(Ok((only(self.fds)?, if directory { Shape::Directory } else { Shape::File })))
            }
            _ => None,
        }
    }

    /// Result of work without a result of its own.
    pub(super) fn into_done(self) -> Option<Result<(), Errno>> {
        match self.without_descriptors()? {
            Answer::Done => Some(Ok(())),
            Answer::Failed(number) => Some(Err(Errno::from_raw(number))),
            _ => None,
        }
    }

    /// A digest.
    pub(super) fn into_digest(self) -> Option<Digest> {
        match self.without_descriptors()? {
            Answer::Digest(text) => Digest::parse(OsStr::new(&text)).ok(),
            _ => None,
        }
    }

    /// Entries for the user `uid` and for some of `groups`, each of them one line.
    pub(super) fn into_account(self, uid: u32, asked: &[u32]) -> Option<Account> {
        let Answer::Account { passwd, home, groups } = self.without_descriptors()? else { return None };
        let line = |line: &str| !line.contains(['\n', '\0']);
        // `name:x:uid:…` and `name:x:gid:`
        let own = |passwd: &str| {
            let mut fields = passwd.split(':').skip(1);
            fields.next() == Some("x") && fields.next().and_then(|field| field.parse().ok()) == Some(uid)
        };
        let mut known = asked.to_vec();
        known.sort_unstable();
        let group = |entry: &String| {
            let gid = entry.strip_suffix(':').and_then(|entry| entry.rsplit_once(":x:")?.1.parse().ok());
            line(entry) && gid.is_some_and(|gid: u32| known.binary_search(&gid).is_ok())
        };
        let sound = (passwd.is_empty() || line(&passwd) && own(&passwd))
            && groups.len() <= asked.len()
            && groups.iter().map(String::len).sum::<usize>() <= 2 * GROUPS
            && groups.iter().all(group);
        let home = Some(PathBuf::from(home.0)).filter(|home| home.is_absolute());
        let sound = sound && home.as_ref().is_none_or(|home| !home.as_os_str().as_bytes().contains(&0));
        sound.then_some(Account { passwd, home, groups })
    }

    /// A user id, if the user exists.
    pub(super) fn into_uid(self) -> Option<Option<u32>> {
        match self.without_descriptors()? {
            Answer::Uid(uid) => Some(uid),
            _ => None,
        }
    }

    /// Fit of a profile, whose names are not checked.
    pub(super) fn into_fit(self) -> Option<Fit> {
        match self.without_descriptors()? {
            Answer::Fit(fit) => Some(fit),
            _ => None,
        }
    }

    /// A version of glibc, if the image has one.
    pub(super) fn into_glibc(self) -> Option<Option<String>> {
        match self.without_descriptors()? {
            Answer::Glibc(version) => glibc::checked(version),
            _ => None,
        }
    }

    fn without_descriptors(self) -> Option<Answer> {
        self.fds.is_empty().then_some(self.found)
    }
}

/// The one descriptor of a reply.
fn only(fds: Vec<OwnedFd>) -> Option<OwnedFd> {
    <[OwnedFd; 1]>::try_from(fds).ok().map(|[fd]| fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(found: Answer, descriptors: usize) -> Reply<Answer> {
        let fds = (0..descriptors).map(|_| File::open("/dev/null").unwrap().into()).collect();
        Reply { found, fds }
    }

    fn image() -> Answer {
        Answer::Image { words: "file 0 4096 zstd".into(), length: 4096 }
    }

    fn opened() -> Answer {
        Answer::Opened { directory: true }
    }

    #[test]
    fn a_reply_has_the_form_and_the_descriptors_of_its_question() {
        assert_eq!(reply(image(), 1).into_image().unwrap().1, 4096);
        assert_eq!(reply(opened(), 1).into_opened().unwrap().unwrap().1, Shape::Directory);
        assert_eq!(reply(Answer::Failed(2), 0).into_opened().unwrap().unwrap_err(), Errno::ENOENT);
        assert_eq!(reply(Answer::Done, 0).into_done(), Some(Ok(())));
        assert_eq!(reply(Answer::Failed(16), 0).into_done(), Some(Err(Errno::EBUSY)));
        assert_eq!(reply(Answer::Uid(Some(7)), 0).into_uid(), Some(Some(7)));
        for wrong in [(image(), 0), (image(), 2), (opened(), 1), (Answer::Done, 1)] {
            assert!(reply(wrong.0, wrong.1).into_image().is_none());
        }
        for wrong in [(opened(), 0), (opened(), 2), (Answer::Failed(2), 1), (image(), 1), (Answer::Done, 0)] {
            assert!(reply(wrong.0, wrong.1).into_opened().is_none());
        }
        for (found, descriptors) in [(Answer::Done, 1), (Answer::Failed(2), 1), (Answer::Uid(None), 0)] {
            assert!(reply(found, descriptors).into_done().is_none());
        }
        assert!(reply(Answer::Uid(None), 1).into_uid().is_none());
        assert!(reply(Answer::Done, 0).into_uid().is_none());
        assert!(reply(Answer::Done, 0).into_fit().is_none());
        assert!(reply(Answer::Done, 0).into_glibc().is_none());
        assert!(reply(Answer::Glibc(Some("GLIBC_2.36\n".into())), 0).into_glibc().is_none());
        let digest = |text: &str, descriptors| reply(Answer::Digest(text.into()), descriptors).into_digest();
        let text = format!("sha256:{}", "0".repeat(64));
        assert!(digest(&text, 0).is_some() && digest(&text, 1).is_none());
        assert!(digest("sha256:0", 0).is_none() && digest("", 0).is_none());
    }

    #[test]
    fn an_image_lies_in_its_file() {
        for words in ["file 0 4097 zstd", "file 4096 1 zstd", "none 0 1 zstd", "directory 0 1 zstd", ""] {
            let answer = Answer::Image { words: words.into(), length: 4096 };
            assert!(reply(answer, 1).into_image().is_none(), "{words}");
        }
    }

    #[test]
    fn an_account_is_that_of_the_user_and_of_the_groups() {
        let account = |passwd: &str, home: &str, groups: &[&str]| {
            let groups = groups.iter().map(|line| (*line).to_owned()).collect();
            let answer = Answer::Account { passwd: passwd.into(), home: home.into(), groups };
            reply(answer, 0).into_account(2001, &[2001, 7])
        };
        let line = "alice:x:2001:2001:A:/home/alice:/bin/sh";
        let good = account(line, "/home/alice", &["alice:x:2001:", "seven:x:7:"]).unwrap();
        assert_eq!((good.name(), good.groups.len()), (Some("alice"), 2));
        assert_eq!(account("", "", &[]), Some(Account::default()));
        assert_eq!(account("", "home", &[]).unwrap().home, None);
        for wrong in ["root:x:0:0::/root:/bin/sh", "alice", "a:x:2001:1:\nroot:x:0:0", "a\0:x:2001:", "a:y:2001:"] {
            assert_eq!(account(wrong, "/", &[]), None, "{wrong:?}");
        }
        assert_eq!(account(line, "/home/al\0ice", &[]), None);
        for wrong in [&["wheel:x:10:"][..], &["a:x:7"], &["a"], &["a\nb:x:7:"], &["a:x:7:"; 3], &["a:x:7:root:"]] {
            assert_eq!(account(line, "/", wrong), None, "{wrong:?}");
        }
    }
}
