//! Lists the errors in a request.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

use super::{FORM, MAX_LEN};
use crate::options;
use crate::report::{Kind, Refusal};

/// Error in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Error in the value of an option.
    Option(options::Error),
    /// `--container=` without a value.
    NoImage,
    /// A scheme such as `docker://` where no image is fetched.
    Scheme(OsString),
    /// `step:` without a step.
    Step(OsString),
    /// An option that needs an image, without an image.
    WithoutImage(String),
    /// `IMAGE@sha256:…` and `--container-digest` name different digests.
    TwoDigests(OsString),
    /// An option that cannot be changed in a running container.
    MadeAlready,
    /// Longer than [`MAX_LEN`].
    TooLong(usize),
    /// `SLURM_CORACLE_REQUEST` has another form, given by its number: it comes from another version of Coracle.
    OtherForm(String),
    /// The submit side does not write such a `SLURM_CORACLE_REQUEST`.
    Garbled(&'static str),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
        let usage = |object: String, cause: &str| Self::new(Kind::Usage, object, cause);
        match error {
            Error::Option(error) => error.into(),
            Error::NoImage => usage("--container".into(), "the name of an image is missing"),
            Error::Scheme(text) => {
                usage(lossy(&text), "no kind of image that is fetched: docker://… is, by who asks for it")
                    .hint("make a file of it first: coracle pull docker://…")
            }
            Error::Step(text) => {
                usage(lossy(&text), "not a step: step:NUMBER, step:batch or step:interactive is wanted")
                    .hint("an image of that name is ./NAME")
            }
            Error::WithoutImage(flag) => {
                usage(flag, "no image was asked for").hint("add --container=IMAGE, or leave this option out")
            }
            Error::TwoDigests(text) => {
                usage(lossy(&text), "the digest behind @ and the one of --container-digest differ")
            }
            Error::MadeAlready => usage(
                "--container=step".into(),
                "binds, digest, home, MPI, GPUs, and what can be written were decided when that step started",
            ),
            Error::TooLong(length) => {
                usage("--container".into(), &format!("the options take {length} bytes, at most {MAX_LEN} are possible"))
            }
            Error::OtherForm(form) => usage(
                "SLURM_CORACLE_REQUEST".into(),
                &format!("of form {form}, and this node reads form {FORM}"),
            )
            .hint("the host on which the job was submitted has another version of Coracle: submit it again when both are the same"),
            Error::Garbled(what) => usage("SLURM_CORACLE_REQUEST".into(), &format!("cannot be read: {what}"))
                .hint("this variable is made by srun, sbatch and salloc; do not set it"),
        }
    }
}

impl From<options::Error> for Error {
    fn from(error: options::Error) -> Self {
        Self::Option(error)
    }
}
