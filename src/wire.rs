//! Encodes the messages between plugin and launcher, on one SOCK_SEQPACKET pair per step and node.
//!
//! In order: the plugin sends one [`Start`] (init_post_opt), with the job's environment in a file in memory, and one
//! [`Here`] (user_init). Each task sends one [`Hello`], with its mount namespace as a descriptor. It gets one
//! [`Answer`], with the container's namespace and a file of changes to its environment. A message is `key=value`
//! records with a NUL behind each: no value of Slurm, an environment or a path can contain a NUL.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::report::{Kind, Refusal};
use crate::sys::Identity;

/// File with the answer ([`Answer`]) to an srun in a container whose user asks for a TaskEpilog. On the node srun asks
/// the launcher, which a container does not have.
pub const EPILOG: &str = "/run/coracle/slurm/epilog";

/// Slurm's description of the step. It comes from the step's own record, never from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Job id.
    pub job: u32,
    /// Step id; the special ones as in slurm.h (batch 0xfffffffb, interactive 0xfffffffa).
    pub step: u32,
    /// Process id of slurmstepd.
    pub daemon: u32,
    /// Number of nodes of the step.
    pub nodes: u32,
    /// Number of this node among them, from 0.
    pub node: u32,
    /// Number of tasks on this node.
    pub tasks: u32,
    /// Number of tasks on all nodes.
    pub all_tasks: u32,
    /// The first word of the step's command.
    pub command: Option<OsString>,
    /// Identity of the job's user.
    pub identity: Identity,
    /// `SLURM_CORACLE_REQUEST`, unread; empty for a step without a request.
    pub request: OsString,
    /// Directory of a batch step's script in slurmd's spool.
    pub script_folder: Option<PathBuf>,
    /// Expected working directory of the step: the job's `PWD`. [`Here`] gives the actual one.
    pub directory: Option<PathBuf>,
    /// Slurm's own configuration file, as slurmd passed it to slurmstepd.
    pub slurm_conf: Option<PathBuf>,
    /// Slurm's name of this node.
    pub node_name: Option<OsString>,
}

/// Working directory of the step, once slurmstepd has set it up as the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The working directory (getcwd(3)).
    pub directory: PathBuf,
    /// Directory of the step's PMIx server.
    pub pmix: Option<PathBuf>,
}

/// A task that is ready to enter; its mount namespace comes as a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Directory of the step's PMIx server in the environment of the task's process.
    pub pmix: Option<PathBuf>,
}

/// Answer of the launcher to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The container is ready. Its mount namespace comes as a descriptor, and behind it the file of changes to the
    /// task's environment ([`crate::env::Change`]).
    Enter {
        /// Notes for the user, beside a successful start.
        notes: Vec<String>,
        /// Directory in which the task starts, if it is not the job's.
        workdir: Option<PathBuf>,
        /// True if the image's entry point runs the command.
        entrypoint: bool,
        /// Request that the steps of this one inherit, where it is the site's default.
        steps: Option<OsString>,
    },
    /// This step stays on the node. The file of changes to the environment comes as a descriptor.
    Outside,
    /// The task must not start.
    Refused(Refusal),
}

/// Number of the form of all messages. A task's greeting and a refusal have the same form under every number.
const FORM: u32 = if cfg!(feature = "variant") { 99 } else { 1 };

/// Error of a message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// A part is missing or makes no sense.
    Part(&'static str),
    /// Another form, by its number; 0 stands for none.
    Form(u32),
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        let cause = match malformed {
            Malformed::Part(part) => format!("a message without a proper {part}"),
            Malformed::Form(form) => format!("messages of form {form} and {FORM}: they are of different versions"),
        };
        Self::new(Kind::Internal, "plugin and launcher", cause)
            .hint("install coracle and coracle-slurm in the same version on this node; slurmd need not be started anew")
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn put(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
        self.0.extend(value.as_ref().as_bytes().iter().copied().filter(|byte| *byte != 0));
        self.0.push(0);
        self
    }

    fn put_if(self, key: &str, value: Option<impl AsRef<OsStr>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn all(&self, key: &str) -> impl Iterator<Item = OsString> {
        self.0.split(|byte| *byte == 0).filter_map(move |record| {
            let value = record.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    }

    fn get(&self, key: &str) -> Option<OsString> {
        self.all(key).next()
    }

    fn need(&self, key: &'static str) -> Result<OsString, Malformed> {
        self.get(key).ok_or(Malformed::Part(key))
    }

    fn number(&self, key: &'static str) -> Result<u32, Malformed> {
        self.need(key)?.to_str().and_then(|text| text.parse().ok()).ok_or(Malformed::Part(key))
    }

    fn path(&self, key: &'static str) -> Result<Option<PathBuf>, Malformed> {
        match self.get(key).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => Err(Malformed::Part(key)),
            path => Ok(path),
        }
    }

    fn text(&self, key: &'static str) -> Result<String, Malformed> {
        self.need(key)?.into_string().map_err(|_| Malformed::Part(key))
    }
}

impl Start {
    /// Encodes the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let groups: Vec<String> = self.identity.groups.iter().map(u32::to_string).collect();
        Writer::default()
            .put("form", FORM.to_string())
            .put("job", self.job.to_string())
            .put("step", self.step.to_string())
            .put("daemon", self.daemon.to_string())
            .put("nodes", self.nodes.to_string())
            .put("node", self.node.to_string())
            .put("tasks", self.tasks.to_string())
            .put("all_tasks", self.all_tasks.to_string())
            .put_if("command", self.command.as_ref())
            .put("uid", self.identity.uid.to_string())
            .put("gid", self.identity.gid.to_string())
            .put("groups", groups.join(","))
            .put("request", &self.request)
            .put_if("script_folder", self.script_folder.as_ref())
            .put_if("directory", self.directory.as_ref())
            .put_if("slurm_conf", self.slurm_conf.as_ref())
            .put_if("node_name", self.node_name.as_ref())
            .0
    }

    /// Reads [`Start::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let reader = Reader(bytes);
        match reader.number("form").unwrap_or(0) {
            FORM => {}
            other => return Err(Malformed::Form(other)),
        }
        let groups = reader.text("groups")?;
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::parse).collect::<Result<_, _>>();
        Ok(Self {
            job: reader.number("job")?,
            step: reader.number("step")?,
            daemon: reader.number("daemon")?,
            nodes: reader.number("nodes")?,
            node: reader.number("node")?,
            tasks: reader.number("tasks")?,
            all_tasks: reader.number("all_tasks")?,
            command: reader.get("command"),
            identity: Identity {
                uid: reader.number("uid")?,
                gid: reader.number("gid")?,
                groups: groups.map_err(|_| Malformed::Part("groups"))?,
            },
            request: reader.need("request")?,
            script_folder: reader.path("script_folder")?,
            directory: reader.path("directory")?,
            slurm_conf: reader.path("slurm_conf")?,
            node_name: reader.get("node_name"),
        })
    }
}

impl Here {
    /// Encodes the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::default().put("directory", &self.directory).put_if("pmix", self.pmix.as_ref()).0
    }

    /// Reads [`Here::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let reader = Reader(bytes);
        Ok(Self {
            directory: reader.path("directory")?.ok_or(Malformed::Part("directory"))?,
            pmix: reader.path("pmix")?,
        })
    }
}

impl Hello {
    /// Encodes the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::default().put("hello", "1").put_if("pmix", self.pmix.as_ref()).0
    }

    /// Reads [`Hello::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let reader = Reader(bytes);
        reader.need("hello")?;
        Ok(Self { pmix: reader.path("pmix")? })
    }
}

impl Answer {
    /// Encodes the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Enter { notes, workdir, entrypoint, steps } => {
                let writer = Writer::default().put("enter", "1").put_if("workdir", workdir.as_ref());
                let writer = writer.put_if("steps", steps.as_ref());
                let writer = writer.put("entrypoint", if *entrypoint { "1" } else { "0" });
                notes.iter().fold(writer, |writer, note| writer.put("note", note)).0
            }
            Self::Outside => Writer::default().put("outside", "1").0,
            Self::Refused(refusal) => {
                Writer::default()
                    .put("kind", refusal.kind.word())
                    .put("object", &refusal.object)
                    .put("cause", &refusal.cause)
                    .put_if("hint", refusal.hint.as_ref())
                    .0
            }
        }
    }

    /// Reads [`Answer::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let reader = Reader(bytes);
        if reader.get("enter").is_some() {
            let notes = reader.all("note").map(|note| note.to_string_lossy().into_owned()).collect();
            let entrypoint = reader.number("entrypoint")? != 0;
            let (workdir, steps) = (reader.path("workdir")?, reader.get("steps"));
            return Ok(Self::Enter { notes, workdir, entrypoint, steps });
        }
        if reader.get("outside").is_some() {
            return Ok(Self::Outside);
        }
        let kind = Kind::from_word(&reader.text("kind")?).ok_or(Malformed::Part("kind"))?;
        let mut refusal = Refusal::new(kind, reader.text("object")?, reader.text("cause")?);
        refusal.hint = reader.get("hint").and_then(|hint| hint.into_string().ok());
        Ok(Self::Refused(refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_journey() {
        let start = Start {
            job: 7,
            step: 0xffff_fffb,
            daemon: 4711,
            nodes: 3,
            node: 2,
            tasks: 16,
            all_tasks: 48,
            command: Some("./app=1".into()),
            identity: Identity { uid: 2001, gid: 2001, groups: vec![2001, 3001] },
            request: "2:image=/a=b".into(),
            script_folder: Some("/var/spool/slurmd/job00007".into()),
            directory: Some("/home/alice".into()),
            slurm_conf: Some("/etc/slurm/slurm.conf".into()),
            node_name: Some("n2".into()),
        };
        assert_eq!(Start::from_bytes(&start.to_bytes()), Ok(start));
        let here = Here { directory: "/with\nnewline".into(), pmix: None };
        assert_eq!(Here::from_bytes(&here.to_bytes()), Ok(here));
        let hello = Hello { pmix: Some("/p".into()) };
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Ok(hello));
        for answer in [
            Answer::Enter {
                notes: vec!["a".into(), "b".into()],
                workdir: Some("/w".into()),
                entrypoint: true,
                steps: None,
            },
            Answer::Enter { notes: vec![], workdir: None, entrypoint: false, steps: Some("2:image=/a".into()) },
            Answer::Outside,
            Answer::Refused(Refusal::new(Kind::Policy, "o", "c").hint("h")),
        ] {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), Ok(answer));
        }
    }

    #[test]
    fn a_message_that_lacks_something_is_refused() {
        assert_eq!(Start::from_bytes(b"form=1\0job=1\0step=x\0groups=\0"), Err(Malformed::Part("step")));
        for (message, form) in [(&b"job=1\0step=2\0groups=\0"[..], 0), (b"form=2\0job=1\0", 2)] {
            let malformed = Start::from_bytes(message).unwrap_err();
            assert_eq!(malformed, Malformed::Form(form));
            let line = Refusal::from(malformed).line();
            assert!(line.contains(&format!("messages of form {form} and 1: they are of different versions")), "{line}");
        }
        assert_eq!(Here::from_bytes(b"directory=relative\0"), Err(Malformed::Part("directory")));
        assert_eq!(Hello::from_bytes(b"enter=1\0"), Err(Malformed::Part("hello")));
        assert_eq!(Answer::from_bytes(b"kind=nonsense\0"), Err(Malformed::Part("kind")));
    }
}
