//! Fetches images from registries (OCI's distribution-spec, and Docker's registries before it).
//!
//! Manifest, configuration and layers are requested from the mirrors of the site, if there are any, and then from the
//! registry itself. Digests check them, whatever place sends them. For a tag, the first place that has it decides on
//! the image.
#![forbid(unsafe_code)]

mod cache;
mod connection;
mod credentials;
mod download;
mod fault;
mod manifest;
mod name;
mod progress;

use std::collections::BTreeMap;
use std::time::Duration;

use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::config::{self, Config};
use coracle_orders::Access;

use crate::sources::archive::Layer;
use crate::sources::digest::Digest;
use crate::sources::oci;
use crate::sources::oci::manifest::{Choice, Index, Manifest};
use crate::sources::platform::{Platform, Processor};
use cache::Cache;
use connection::{Clients, Connection};
use download::Download;
use fault::{Fault, patiently};
pub use manifest::{LONGEST_CONFIG, Part, parts as registry_parts};
pub use name::Name;
use progress::Progress;

/// Limit of nested indexes.
const DEPTH: u32 = 3;
/// Limit of the images without a platform that are examined in an index.
const MOST_SILENT: usize = 16;
/// Header with the digest of the manifest.
const DIGEST: &str = "docker-content-digest";

/// Access to registries: the user's options and the site's settings.
///
/// It is made before the workshop: inside its user namespace, the owner of coracle.yaml cannot be verified as root.
pub struct Registries {
    access: Access,
    silent: bool,
    site: Result<config::Registries, Refusal>,
}

/// Image that a place has.
struct Found {
    digest: Digest,
    config: Part,
    layers: Vec<Part>,
}

impl Registries {
    /// Keeps an error of coracle.yaml until a registry is needed. Shows no progress if `silent`.
    pub fn of(access: &Access, silent: bool) -> Self {
        let site = Config::load(&access.config).map(|config| config.registries).map_err(Refusal::from);
        Self { access: access.clone(), silent, site }
    }

    /// Downloads the missing parts of an image, and checks all of it.
    ///
    /// It uses threads, all of which have ended when it returns: then the process can fork.
    pub fn fetch(&self, name: &Name) -> Result<oci::Image, Refusal> {
        let wanted = self.wanted()?;
        let site = self.site(name)?;
        let cache = Cache::open()?;
        let clients = self.clients()?;
        let (places, found) = self.look(name, site, &wanted, &clients)?;

        let mut parts: BTreeMap<&Digest, &Part> = BTreeMap::new();
        for part in found.layers.iter().chain([&found.config]) {
            if parts.insert(&part.digest, part).is_some_and(|other| other.size != part.size) {
                let cause = format!("its manifest has two lengths for {}", part.digest);
                return Err(Refusal::new(Kind::ImageFormat, name.typed(), cause));
            }
        }
        let total = parts.values().fold(0, |sum: u64, part| sum.saturating_add(part.size));
        let progress = Progress::of(name.typed(), total, self.silent);
        let download = Download::of(name.typed(), &places, &cache, &progress);
        // The configuration first: it may be for another processor.
        let config = download.one(&found.config)?;
        let config = std::fs::read(&config).map_err(|error| cache.refuse(&error))?;
        let described = describe(&config, &found, &wanted).map_err(|fault| fault.refusal(name.typed()))?;
        parts.remove(&found.config.digest);
        // The large ones first: the small ones fill the time that is left at the end.
        let mut parts: Vec<&Part> = parts.into_values().collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.size));
        download.all(&parts)?;
        cache.clean();

        let mut layers = Vec::new();
        for (place, part) in found.layers.iter().enumerate() {
            let diff_id = described.rootfs.diff_ids.get(place).cloned();
            layers.push(Layer { file: cache.path(&part.digest), offset: 0, size: part.size, diff_id });
        }
        Ok(oci::Image { config, digest: Some(found.digest.to_string()), layers })
    }

    /// Digest of the manifest that [`fetch`](Self::fetch) would take now.
    pub fn resolve(&self, name: &Name) -> Result<String, Refusal> {
        self.look(name, self.site(name)?, &self.wanted()?, &self.clients()?).map(|(_, found)| found.digest.to_string())
    }

    /// Processor of the wanted images.
    pub fn wanted(&self) -> Result<Processor, Refusal> {
        Processor::of(self.access.arch.as_deref()).map_err(|cause| Refusal::new(Kind::Usage, "--arch", cause))
    }

    /// Site's settings for the image's registry.
    fn site(&self, name: &Name) -> Result<Option<&config::Registry>, Refusal> {
        Ok(self.site.as_ref().map_err(Clone::clone)?.get(&name.registry))
    }

    fn clients(&self) -> Result<Clients, Refusal> {
        Clients::new(Duration::from_secs(self.access.timeout.into()))
    }

    /// Looks up the image at all places.
    fn look<'a>(
        &self,
        name: &Name,
        site: Option<&config::Registry>,
        wanted: &Processor,
        clients: &'a Clients,
    ) -> Result<(Vec<Connection<'a>>, Found), Refusal> {
        let mut places = self.places(name, site, clients)?;
        let found = Self::find(&mut places, name, wanted)?;
        Ok((places, found))
    }

    /// Mirrors of the site, and the registry itself.
    fn places<'a>(
        &self,
        name: &Name,
        site: Option<&config::Registry>,
        clients: &'a Clients,
    ) -> Result<Vec<Connection<'a>>, Refusal> {
        let given = self.access.authfile.as_deref();
        let to = |label: &str, host: &str, plain_http, repository, credentials| {
            Connection::to(clients, label, host, plain_http, repository, credentials)
                .map_err(|fault| fault.refusal(name.typed()))
        };
        let mut places = Vec::new();
        for mirror in site.map(|site| site.mirrors.as_slice()).unwrap_or_default() {
            let repository = match mirror.prefix.as_str() {
                "" => name.repository.clone(),
                prefix => format!("{prefix}/{}", name.repository),
            };
            // The user's file may have a login for the registry alone, and none for its mirrors.
            let credentials = credentials::find(given, &mirror.host, &repository, false)?;
            places.push(to(&mirror.host, &mirror.host, mirror.plain_http, repository, credentials)?);
        }
        let plain_http = self.access.plain_http || site.is_some_and(config::Registry::plain_http);
        let credentials = credentials::find(given, &name.registry, &name.repository, true)?;
        places.push(to(&name.registry, name.host(), plain_http, name.repository.clone(), credentials)?);
        Ok(places)
    }

    /// Asks the places in order. Places without the image are removed from `places`.
    fn find(places: &mut Vec<Connection<'_>>, name: &Name, wanted: &Processor) -> Result<Found, Refusal> {
        loop {
            let Some(place) = places.first() else {
                return Err(Refusal::new(Kind::Internal, name.typed(), "there is no place to ask"));
            };
            match resolve(place, name, wanted) {
                Ok(found) => return Ok(found),
                Err(fault) if places.len() == 1 => return Err(fault.refusal(name.typed())),
                Err(fault) => {
                    eprintln!(
                        "{}",
                        clean(&format!("coracle: {}: {}; going on elsewhere", name.typed(), fault.cause()))
                    );
                    places.remove(0);
                }
            }
        }
    }
}

/// Looks up a name at a place, for a processor.
fn resolve(place: &Connection<'_>, name: &Name, wanted: &Processor) -> Result<Found, Fault> {
    let mut expected = name.digest.clone();
    let mut word = name.wanted();
    for _ in 0..DEPTH {
        let (bytes, digest) = ask(place, &word, expected.as_ref())?;
        match Manifest::parse(name.typed(), &bytes)? {
            Manifest::Image { config, layers } => {
                let (config, layers) = manifest::parts(&config, &layers)?;
                return Ok(Found { digest, config, layers });
            }
            Manifest::Index(index) => {
                let part = choose(place, name, &index, wanted)?;
                word = part.digest.to_string();
                expected = Some(part.digest);
            }
        }
    }
    Err(Fault::new(Kind::ImageFormat, "its index leads to indexes only"))
}

/// Image of an index for a processor: by its platform, or else by its configuration.
fn choose(place: &Connection<'_>, name: &Name, index: &Index, wanted: &Processor) -> Result<Part, Fault> {
    let silent = match index.choose(wanted) {
        Choice::Fitting(found) => return Part::of(found),
        Choice::Silent(found) => found,
    };
    let parts = silent.into_iter().take(MOST_SILENT).map(Part::of).collect::<Result<Vec<_>, _>>()?;
    match <[Part; 1]>::try_from(parts) {
        Ok([part]) => Ok(part),
        Err(parts) if parts.is_empty() => Err(nothing_for(wanted, index)),
        Err(parts) => choose_by_config(place, name, parts, wanted),
    }
}

fn nothing_for(wanted: &Processor, index: &Index) -> Fault {
    // Builders put their attestations under this architecture.
    let known = index.platforms().filter(|platform| platform.architecture != "unknown");
    let mut offered: Vec<String> = known.map(Platform::to_string).collect();
    offered.dedup();
    let offered = if offered.is_empty() { "none that says so".into() } else { offered.join(", ") };
    Fault::new(Kind::ImageArch, format!("none of its images is for {wanted}; there are: {offered}"))
        .hint("--arch takes another one")
}

/// First of several images whose configuration names the processor: their index has no platforms.
fn choose_by_config(place: &Connection<'_>, name: &Name, parts: Vec<Part>, wanted: &Processor) -> Result<Part, Fault> {
    for part in parts {
        let (bytes, _) = ask(place, &part.digest.to_string(), Some(&part.digest))?;
        let Manifest::Image { config, layers } = Manifest::parse(name.typed(), &bytes)? else { continue };
        let (config, _) = manifest::parts(&config, &layers)?;
        let bytes = patiently(|| {
            let response = place.get(&format!("blobs/{}", config.digest), "*/*", 0)?;
            place.read(response, manifest::LONGEST_CONFIG)
        })?;
        // The configuration is read again, and checked, when the image is taken.
        let said: oci::Config = serde_json::from_slice(&bytes).unwrap_or_default();
        if wanted.is(&said.architecture) {
            return Ok(part);
        }
    }
    Err(Fault::new(Kind::ImageArch, format!("none of its images says that it is for {wanted}"))
        .hint("name the image by its digest: IMAGE@sha256:DIGITS"))
}

/// Requests a manifest, by tag or digest.
fn ask(place: &Connection<'_>, word: &str, expected: Option<&Digest>) -> Result<(Vec<u8>, Digest), Fault> {
    patiently(|| {
        let response = place.get(&format!("manifests/{word}"), manifest::ACCEPT, 0)?;
        // For a tag, the header is the only digest to compare with. Unknown algorithms are ignored.
        let said = response.headers().get(DIGEST).and_then(|value| Digest::parse(value.to_str().ok()?).ok());
        let bytes = place.read(response, oci::MAX_JSON)?;
        if let Some(expected) = expected.or(said.as_ref()) {
            let digest = expected.of_same_kind(&bytes);
            if digest != *expected {
                let cause = format!("what {} gives out as its manifest {expected} is {digest}", place.label());
                return Err(Fault::new(Kind::Digest, cause));
            }
            return Ok((bytes, digest));
        }
        let digest = Digest::sha256(&bytes);
        Ok((bytes, digest))
    })
}

/// Parses a configuration, which must fit the manifest and the processor.
fn describe(bytes: &[u8], found: &Found, wanted: &Processor) -> Result<oci::Config, Fault> {
    let bad = |cause: String| Fault::new(Kind::ImageFormat, format!("its configuration: {cause}"));
    let config: oci::Config = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    if !config.architecture.is_empty() && !wanted.is(&config.architecture) {
        let cause = format!("it is for {}, not for {wanted}", config.architecture);
        return Err(Fault::new(Kind::ImageArch, cause).hint(format!("--arch {} takes it", config.architecture)));
    }
    let (known, layers) = (config.rootfs.diff_ids.len(), found.layers.len());
    if known != layers {
        return Err(bad(format!("it knows {known} layers, and the manifest {layers}")));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_the_processor_says_which_it_has() {
        let offered = |platforms: &[&str]| {
            let entry = |platform: &&str| format!(r#"{{"digest":"x","size":7,"platform":{platform}}}"#);
            let entries = platforms.iter().map(entry).collect::<Vec<_>>().join(",");
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
            let Ok(Manifest::Index(index)) = Manifest::parse("x", text.as_bytes()) else { panic!() };
            nothing_for(&Processor::of(Some("amd64")).unwrap(), &index).refusal("x").cause
        };
        let said = offered(&[
            r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#,
            r#"{"os":"unknown","architecture":"unknown"}"#,
            r#"{"os":"windows","architecture":"amd64"}"#,
        ]);
        assert_eq!(said, "none of its images is for amd64; there are: arm64/v8, windows/amd64");
        assert_eq!(offered(&[]), "none of its images is for amd64; there are: none that says so");
    }
}
