//! Resolves and applies site policy for a step. Pure functions of the site's settings, the facts of the job, and the
//! properties of the open image: [`effective`] resolves the effective policy, and the other modules decide by it.
#![forbid(unsafe_code)]

mod effective;
mod judge;
mod step;

pub use effective::{Fact, Facts, Job, Missing, Rules, Ruling, Value, effective};
pub use judge::{Denied, Form, Grant, Provenance, Reader, judge, own, too_large};
pub use step::{Bare, bare, epilog, options, outside};

#[cfg(test)]
mod tests;
