//! Messages between `coracle cp` or `rm` and the store's service: one JSON value a packet.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::Record;
use coracle::report::{Kind, Refusal};

/// Request of a user. The image's open file comes along with `Copy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// Keep this image under a name.
    Copy {
        /// The name.
        name: String,
    },
    /// Remove the image of a name.
    Remove {
        /// The name.
        name: String,
    },
}

/// Answers of the service, several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Another image of the same user is being worked on.
    Waiting,
    /// So much has been copied.
    Copied {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The copy is complete; its structure and its signatures are looked at.
    Checking,
    /// The site's scanner has it.
    Scanning,
    /// It is in the store.
    Stored(Box<Record>),
    /// It is no longer in the store.
    Removed,
    /// Nothing was changed.
    Refused {
        /// The word of its kind.
        kind: String,
        /// The object.
        object: String,
        /// The cause.
        cause: String,
        /// Advice.
        hint: Option<String>,
    },
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let Refusal { object, cause, kind, hint } = refusal;
        Self::Refused { kind: kind.word().to_owned(), object, cause, hint }
    }
}

impl Reply {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Refused { kind, object, cause, hint } = self else { return None };
        let kind = Kind::from_word(kind).unwrap_or(Kind::Internal);
        Some(Refusal { object: object.clone(), cause: cause.clone(), kind, hint: hint.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_journey() {
        let refusal = Refusal::new(Kind::Store, "a", "b").hint("c");
        let text = serde_json::to_vec(&Reply::from(refusal.clone())).unwrap();
        assert_eq!(serde_json::from_slice::<Reply>(&text).unwrap().refusal(), Some(refusal));
        assert_eq!(Reply::Waiting.refusal(), None);
    }
}
