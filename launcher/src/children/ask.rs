//! Encoding of the answers of child processes: JSON, either a result or a refusal.
#![forbid(unsafe_code)]

use coracle::report::{Kind, Refusal, clean};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

/// Encodes an answer.
pub fn to_bytes<T: Serialize>(answer: Result<T, Refusal>) -> Vec<u8> {
    let answer = match answer {
        Ok(found) => Answer::Found(found),
        Err(Refusal { kind, object, cause, hint }) => {
            Answer::Refused(Refused { kind: kind.word().to_owned(), object, cause, hint })
        }
    };
    // serde_json refuses only maps whose keys are not strings, and no answer has one. An empty answer is garbled.
    serde_json::to_vec(&answer).unwrap_or_default()
}

/// Decodes an answer about `object`. The child process may be compromised: invalid bytes are a refusal, and the text of
/// a refusal contains no terminal control characters.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8], object: &str) -> Result<T, Refusal> {
    match serde_json::from_slice(bytes) {
        Ok(Answer::Found(found)) => Ok(found),
        Ok(Answer::Refused(refused)) => {
            let kind = Kind::from_word(&refused.kind).ok_or_else(|| garbled(object))?;
            let refusal = Refusal::new(kind, clean(&refused.object), clean(&refused.cause));
            Err(Refusal { hint: refused.hint.as_deref().map(clean), ..refusal })
        }
        Err(_) => Err(garbled(object)),
    }
}

/// Refusal of `object` for an answer that cannot be decoded.
pub fn garbled(object: &str) -> Refusal {
    Refusal::new(Kind::Internal, object, "the process that looked at it gave an answer that makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_journey() {
        assert_eq!(from_bytes::<String>(&to_bytes(Ok("all")), "o"), Ok("all".to_owned()));
        let refusal = Refusal::new(Kind::Policy, "o", "c").hint("h");
        assert_eq!(from_bytes::<String>(&to_bytes::<String>(Err(refusal.clone())), "x"), Err(refusal));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_refusal() {
        let unknown = br#"{"refused":{"kind":"none","object":"o","cause":"c","hint":null}}"#;
        for wrong in [&b""[..], b"x", b"{}", br#"{"found":1}"#, br#"{"found":"a"}x"#, unknown] {
            assert_eq!(from_bytes::<String>(wrong, "o"), Err(garbled("o")), "{wrong:?}");
        }
        let hostile = br#"{"refused":{"kind":"policy","object":"o","cause":"\u001b[2Jc","hint":"\n"}}"#;
        let refusal = from_bytes::<String>(hostile, "o").unwrap_err();
        assert!(!refusal.cause.contains('\u{1b}') && !refusal.hint.unwrap().contains('\n'));
    }
}
