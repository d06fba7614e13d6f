//! Rights of a step here. Pure functions of the site's settings, of what is known about the job, and of what is known
//! about the open image: [`effective`] finds the rules that hold for a job, and the rest decides by them.
#![forbid(unsafe_code)]

mod effective;
mod judge;
mod step;

pub use effective::{Fact, Facts, Job, Missing, Rules, Ruling, Value, effective};
pub use judge::{Denied, Form, Grant, Provenance, Reader, judge, own, too_large};
pub use step::{Bare, bare, epilog, options, outside};

#[cfg(test)]
mod tests;
