//! Verdict of a process of the [`sandbox`]: an answer, or a refusal.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use coracle::report::{Kind, Refusal};
use coracle::sys::{Cgroups, Identity};
use coracle::wire::Answer;

use crate::sandbox;

/// [`sandbox::compute`] for work that may refuse what it looks at, which the user calls `object`. What it answers may come from a
/// process that somebody else has taken over.
pub fn of(
    as_user: Option<&Identity>,
    groups: Option<&Cgroups>,
    object: &str,
    files: &[BorrowedFd<'_>],
    limit: Duration,
    work: impl FnOnce(&[File]) -> Result<Vec<u8>, Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let answer = sandbox::compute(as_user, groups, files, limit, |files| match work(files) {
        Ok(answer) => [&[FOUND], answer.as_slice()].concat(),
        Err(refusal) => [&[REFUSED], Answer::Refused(refusal).to_bytes().as_slice()].concat(),
    });
    let answer = answer.map_err(|refusal| Refusal { object: object.to_owned(), ..refusal })?;
    told(&answer).unwrap_or_else(|| Err(garbled(object)))
}

/// Reads the answer of a process that may have been taken over; nothing, if it makes no sense.
fn told(answer: &[u8]) -> Option<Result<Vec<u8>, Refusal>> {
    match answer.split_first()? {
        (&FOUND, answer) => Some(Ok(answer.to_vec())),
        (&REFUSED, refusal) => match Answer::from_bytes(refusal) {
            Ok(Answer::Refused(refusal)) => Some(Err(refusal)),
            _ => None,
        },
        _ => None,
    }
}

/// The refusal of `object` when the answer about it cannot be read.
pub fn garbled(object: &str) -> Refusal {
    Refusal::new(Kind::Internal, object, "the process that looked at it gave an answer that makes no sense")
}

/// Start of an answer of [`of`].
const FOUND: u8 = b'+';
const REFUSED: u8 = b'!';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        assert_eq!(told(b"+all"), Some(Ok(b"all".to_vec())));
        let refusal = Refusal::new(Kind::Policy, "o", "c");
        let said = [&[REFUSED], Answer::Refused(refusal.clone()).to_bytes().as_slice()].concat();
        assert_eq!(told(&said), Some(Err(refusal)));
        for wrong in [&b""[..], b"x", b"!", b"!x"] {
            assert_eq!(told(wrong), None, "{wrong:?}");
        }
    }
}
