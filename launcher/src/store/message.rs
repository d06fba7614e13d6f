//! Messages between `coracle cp` or `rm` and the store's service: one JSON value in each packet.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::Record;
use coracle::report::{Kind, Refusal};

/// Request of a user. With `Copy`, the packet carries the descriptor of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// Stores this image under a name.
    Copy {
        /// The name.
        name: String,
    },
    /// Removes the image with a name.
    Remove {
        /// The name.
        name: String,
    },
}

/// Replies of the service; there are several to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The service works on another image of the same user.
    Waiting,
    /// Progress of the copy.
    Copied {
        /// Bytes copied.
        bytes: u64,
        /// Bytes in total.
        total: u64,
    },
    /// The copy is complete; its structure and signatures are checked.
    Checking,
    /// The site's scanner checks it.
    Scanning,
    /// The image is in the store.
    Stored(Box<Record>),
    /// The image has been removed.
    Removed,
    /// The request failed, and nothing was changed.
    Refused {
        /// Kind of the error, as a word.
        kind: String,
        /// The object.
        object: String,
        /// The cause.
        cause: String,
        /// Hint.
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
    /// The refusal, if this is one.
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
