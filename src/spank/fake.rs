//! Stands in for Slurm in unit tests.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;

use super::{ClientCommand, Job};
use crate::sys::{self, Release};

/// Variables of a job or a command.
type Variables = RefCell<BTreeMap<String, OsString>>;

/// Variables in the order of their names, as the text that a test compares.
fn listed(variables: &Variables) -> Vec<(&'static str, &'static str)> {
    let leak = |text: String| &*text.leak();
    let text = |value: &OsString| value.to_str().unwrap().to_owned();
    variables.borrow().iter().map(|(name, value)| (leak(name.clone()), leak(text(value)))).collect()
}

/// A job on a node.
#[derive(Default)]
pub struct FakeJob {
    id: Option<u32>,
    step: Option<u32>,
    variables: Variables,
}

impl FakeJob {
    pub fn new() -> Self {
        Self { id: Some(70), step: Some(0), ..Self::default() }
    }

    pub fn id(mut self, id: u32) -> Self {
        self.id = Some(id);
        self
    }

    pub fn step(mut self, step: u32) -> Self {
        self.step = Some(step);
        self
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        self.variables.borrow_mut().insert(name.into(), value.into());
        self
    }

    pub fn variables(&self) -> Vec<(&'static str, &'static str)> {
        listed(&self.variables)
    }
}

impl Job for FakeJob {
    fn id(&self) -> Option<u32> {
        self.id
    }

    fn step(&self) -> Option<u32> {
        self.step
    }

    fn variable(&self, name: &CStr, limit: usize) -> Option<OsString> {
        let value = self.variables.borrow().get(name.to_str().unwrap()).cloned()?;
        Some(OsString::from_vec(value.as_bytes().iter().copied().take(limit).collect()))
    }

    fn set_variable(&self, name: &CStr, value: &CStr) {
        let value = OsStr::from_bytes(value.to_bytes()).to_owned();
        self.variables.borrow_mut().insert(name.to_str().unwrap().into(), value);
    }

    fn unset_variable(&self, name: &CStr) {
        self.variables.borrow_mut().remove(name.to_str().unwrap());
    }
}

/// A running srun, sbatch or salloc.
pub struct FakeCommand {
    release: Option<Release>,
    variables: Variables,
    options: RefCell<BTreeMap<String, OsString>>,
    records: BTreeMap<String, String>,
    /// True if no variable can be set.
    full: bool,
    /// True if options can be reset.
    resets: bool,
    notes: RefCell<Vec<String>>,
}

impl FakeCommand {
    /// A command of a late release.
    pub fn new() -> Self {
        Self {
            release: Some(Release(25, 11)),
            variables: Variables::default(),
            options: RefCell::default(),
            records: BTreeMap::new(),
            full: false,
            resets: true,
            notes: RefCell::default(),
        }
    }

    pub fn release(mut self, release: Release) -> Self {
        self.release = Some(release);
        self
    }

    pub fn with(self, name: &str, value: &str) -> Self {
        self.variables.borrow_mut().insert(name.into(), value.into());
        self
    }

    pub fn option(self, name: &str, value: &str) -> Self {
        self.options.borrow_mut().insert(name.into(), value.into());
        self
    }

    pub fn record(mut self, id: &str, text: &str) -> Self {
        self.records.insert(id.into(), text.into());
        self
    }

    pub fn full(mut self) -> Self {
        self.full = true;
        self
    }

    pub fn without_reset(mut self) -> Self {
        self.resets = false;
        self
    }

    pub fn variables(&self) -> Vec<(&'static str, &'static str)> {
        listed(&self.variables)
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }
}

impl ClientCommand for FakeCommand {
    fn release(&self) -> Option<Release> {
        self.release
    }

    fn variable(&self, name: &CStr) -> Option<OsString> {
        self.variables.borrow().get(name.to_str().unwrap()).cloned()
    }

    fn set_variable(&self, name: &CStr, value: &OsStr) -> bool {
        if !self.full {
            self.variables.borrow_mut().insert(name.to_str().unwrap().into(), value.into());
        }
        !self.full
    }

    fn unset_variable(&self, name: &CStr) {
        self.variables.borrow_mut().remove(name.to_str().unwrap());
    }

    fn has_option(&self, name: &CStr) -> bool {
        self.option(name).is_some()
    }

    fn option(&self, name: &CStr) -> Option<OsString> {
        self.options.borrow().get(name.to_str().unwrap()).cloned()
    }

    fn reset_option(&self, name: &CStr) -> bool {
        if self.resets {
            self.options.borrow_mut().remove(name.to_str().unwrap());
        }
        self.resets
    }

    fn job_record(&self, id: &CStr) -> sys::Result<Vec<u8>> {
        let record = self.records.get(id.to_str().unwrap());
        record.map(|text| text.clone().into_bytes()).ok_or_else(|| sys::Error::new("scontrol", Errno::EIO))
    }

    fn note(&self, text: &str) {
        self.notes.borrow_mut().push(text.into());
    }
}
