//! Builds from definition files: the base of an image, the files copied into it, and the commands run in it.
//!
//! Commands on the host itself (%pre, %setup) are not run: the author of a definition file need not be the user who
//! builds it, and the commands would run with all privileges of that user.
#![forbid(unsafe_code)]

mod apps;
mod arguments;
mod debootstrap;
mod files;
mod inside;
pub mod parse;
mod pretence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys;
use coracle_orders::Build;
use nix::fcntl::OFlag;

use crate::build::assembly::{Assembly, assemble};
use crate::build::conventions::{self, Conventions, TEST, labels_from_lines};
use crate::build::root::Root;
use crate::build::workshop::{Owners, Workshop};
use crate::sources::Source;
use crate::sources::registry::Registries;
use arguments::Arguments;
use files::Origin;
use inside::Task;
use parse::{Section, Stage, at};

/// Limit of the length of a definition file, in bytes.
const LIMIT: u64 = 1 << 20;
/// Sources from which images can be made here.
const BOOTSTRAPS: [&str; 7] =
    ["debootstrap", "docker", "docker-archive", "localimage", "oci", "oci-archive", "scratch"];
/// File to which %post writes labels, line by line.
const LABELS: &str = "/.build.labels";
/// File to which %post writes variables.
const VARIABLES: &str = "/.singularity.d/env/91-environment.sh";
/// Path of a script while it runs.
const SCRIPT: &str = "/.post.script";

/// Definition that was read and checked without running it.
#[derive(Debug)]
pub struct Definition {
    file: String,
    stages: Vec<Stage>,
    /// Whole text, with values in place of `{{ NAME }}`.
    text: String,
}

impl Definition {
    /// Reads a definition file; `words` are those of --build-arg.
    pub fn read(path: &Path, words: &[String]) -> Result<Self, Refusal> {
        let file = path.display().to_string();
        let refuse = |cause: String| Refusal::new(Kind::Build, &file, cause);
        let opened = sys::open_untrusted(path, OFlag::O_RDONLY).map_err(|error| refuse(error.to_string()))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::from(opened), LIMIT + 1), &mut text)
            .map_err(|error| refuse(error.to_string()))?;
        if text.len() as u64 > LIMIT {
            return Err(refuse(format!("longer than {LIMIT} bytes")));
        }
        Self::parse(&file, &text, words)
    }

    /// Parses the text of a definition file.
    pub fn parse(file: &str, text: &str, words: &[String]) -> Result<Self, Refusal> {
        let mut arguments = Arguments::of(words)?;
        let (mut stages, mut filled) = (Vec::new(), String::new());
        for (line, text) in parse::stages(text) {
            let text = arguments.fill(file, line, text)?;
            stages.push(parse::stage(file, line, &text)?);
            filled.push_str(&text);
        }
        arguments.all_used()?;
        let definition = Self { file: file.to_owned(), stages, text: filled };
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<(), Refusal> {
        let refuse = |line, cause: String| Refusal::new(Kind::Build, at(&self.file, line), cause);
        let mut names: Vec<&str> = Vec::new();
        for stage in &self.stages {
            self.check_header(stage)?;
            for name in ["pre", "setup"] {
                if let Some(section) = stage.section(name) {
                    let cause =
                        format!("%{name} runs commands on this machine, outside of the image: that is not done");
                    return Err(refuse(section.line, cause).hint(
                        "%files copies into the image, %post runs in it; what else is needed is done before the build",
                    ));
                }
            }
            for files in &stage.files {
                if let Some(from) = &files.stage
                    && !names.contains(&from.as_str())
                {
                    return Err(refuse(files.line, format!("no stage before this one is called {from:?}")));
                }
            }
            if let Some(name) = stage.header("stage") {
                if names.contains(&name) {
                    return Err(refuse(stage.line, format!("a second stage is called {name:?}")));
                }
                names.push(name);
            }
        }
        Ok(())
    }

    fn check_header(&self, stage: &Stage) -> Result<(), Refusal> {
        let refuse = |line, cause: String| Refusal::new(Kind::Build, at(&self.file, line), cause);
        let Some((line, bootstrap)) = stage.header.get("bootstrap") else {
            return Err(refuse(stage.line, "the header has no line such as Bootstrap: docker".into()));
        };
        let bootstrap = bootstrap.to_ascii_lowercase();
        if !BOOTSTRAPS.contains(&bootstrap.as_str()) {
            let cause = format!("Bootstrap: {bootstrap} is not done here: {} are", BOOTSTRAPS.join(", "));
            return Err(refuse(*line, cause));
        }
        if !["debootstrap", "scratch"].contains(&bootstrap.as_str()) && stage.header("from").is_none_or(str::is_empty) {
            return Err(refuse(*line, format!("Bootstrap: {bootstrap} needs a line From:")));
        }
        if let Some((line, _)) = stage.header.get("fingerprints") {
            let cause = "Fingerprints: no signature of an image is looked at here";
            return Err(refuse(*line, cause.into()));
        }
        Ok(())
    }

    /// Assembles the image that the definition describes.
    pub fn assemble(&self, given: &Build, registries: &Registries, workshop: &Workshop) -> Result<Assembly, Refusal> {
        let mut done: Vec<(Option<&str>, Root)> = Vec::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let name = format!("stage-{number}");
            let base = self.base(stage, &name, registries, workshop)?;
            let last = number + 1 == self.stages.len();
            let assembly = self.stage(stage, base, last, &done, given, workshop)?;
            if last {
                return Ok(assembly);
            }
            done.push((stage.header("stage"), assembly.root));
        }
        Err(Refusal::new(Kind::Internal, &self.file, "no stage"))
    }

    fn stage(
        &self,
        stage: &Stage,
        mut assembly: Assembly,
        last: bool,
        done: &[(Option<&str>, Root)],
        given: &Build,
        workshop: &Workshop,
    ) -> Result<Assembly, Refusal> {
        let mut brought = assembly.conventions.take().unwrap_or_default();
        // The image has this definition file, not that of its base.
        (brought.definition, brought.header) = (None, BTreeMap::new());
        // Commands of %post may need the variables of the image.
        conventions::write(&mut assembly.root, &brought)?;
        let root = &mut assembly.root;
        let host = Root::of(Path::new("/"))?;
        let here = std::env::current_dir()
            .map_err(|error| Refusal::new(Kind::System, "the working directory", error.to_string()))?;
        let host = Origin { root: &host, base: here, stage: false };
        let apps = apps::write(&self.file, stage, &host, root)?;
        self.copy_files(stage, done, &host, root)?;
        self.post(stage, root, workshop)?;

        let mut labels = stage.section("labels").map(|section| labels_from_lines(&section.text)).unwrap_or_default();
        if let Some(text) = root.read(Path::new(LABELS), LIMIT)? {
            labels.extend(labels_from_lines(&String::from_utf8_lossy(&text)));
            root.remove(Path::new(LABELS))?;
        }
        let text = |name: &str| stage.section(name).map(|section| section.text.trim_end().to_owned());
        let script = |name: &str| stage.section(name).map(Section::script);
        let header = stage.header.iter().map(|(key, (_, value))| (key.clone(), value.clone()));
        let conventions = Conventions {
            oci: brought.oci,
            environment: text("environment"),
            runscript: script("runscript"),
            startscript: script("startscript"),
            test: script("test"),
            help: text("help").map(|text| text + "\n"),
            labels,
            definition: last.then(|| self.text.clone()),
            header: header.collect::<BTreeMap<_, _>>(),
            apps,
            architecture: Some(assembly.architecture.clone()),
        };
        conventions::write(&mut assembly.root, &conventions)?;
        assembly.conventions = Some(conventions);
        if let Some(section) = stage.section("test").filter(|_| !given.notest) {
            let words: [&OsStr; 1] = [OsStr::new(TEST)];
            self.run(section, "%test", &words, &mut assembly.root, workshop)?;
        }
        Ok(assembly)
    }

    /// Base of the stage.
    fn base(
        &self,
        stage: &Stage,
        name: &str,
        registries: &Registries,
        workshop: &Workshop,
    ) -> Result<Assembly, Refusal> {
        let from = stage.header("from").unwrap_or_default();
        let bootstrap = stage.header("bootstrap").unwrap_or_default().to_ascii_lowercase();
        let own = |root| Assembly { root, architecture: std::env::consts::ARCH.into(), conventions: None };
        let source = match bootstrap.as_str() {
            "scratch" => {
                let mut root = Root::create(&workshop.directory.join(name))?;
                // Without root in a namespace, copied files belong to the user.
                root.all_root = workshop.owners == Owners::Own;
                return Ok(own(root));
            }
            "debootstrap" => return debootstrap::make(&self.file, stage, name, workshop).map(own),
            "localimage" => {
                let line = stage.header.get("from").map_or(stage.line, |(line, _)| *line);
                let place = || at(&self.file, line);
                let source = Source::of(PathBuf::from(from).as_os_str());
                match source.map_err(|refusal| Refusal {
                    cause: format!("{}: {}", refusal.object, refusal.cause),
                    object: place(),
                    ..refusal
                })? {
                    Source::Definition(_) => {
                        let cause = format!("{from} is a definition file: build it first");
                        return Err(Refusal::new(Kind::Build, place(), cause));
                    }
                    source => source,
                }
            }
            "docker" => {
                let parts = [stage.header("registry"), stage.header("namespace"), Some(from)];
                let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
                Source::Registry(parts.join("/"))
            }
            other => Source::of(OsStr::new(&format!("{other}:{from}")))?,
        };
        assemble(&source, registries, name, workshop)
    }

    fn copy_files(
        &self,
        stage: &Stage,
        done: &[(Option<&str>, Root)],
        host: &Origin<'_>,
        root: &mut Root,
    ) -> Result<(), Refusal> {
        // As in Apptainer: files from other stages come first.
        for files in stage.files.iter().filter(|files| files.stage.is_some()) {
            let from = done.iter().find(|(name, _)| *name == files.stage.as_deref());
            let Some((_, from)) = from else { continue };
            let origin = Origin { root: from, base: "/".into(), stage: true };
            files.list.iter().try_for_each(|transfer| files::copy(&self.file, transfer, &origin, root))?;
        }
        for files in stage.files.iter().filter(|files| files.stage.is_none()) {
            files.list.iter().try_for_each(|transfer| files::copy(&self.file, transfer, host, root))?;
        }
        Ok(())
    }

    fn post(&self, stage: &Stage, root: &mut Root, workshop: &Workshop) -> Result<(), Refusal> {
        let mut section = stage.section("post").cloned().unwrap_or_default();
        section.text += &apps::install(stage);
        if section.is_empty() {
            return Ok(());
        }
        if section.line == 0 {
            section.line = stage.line;
        }
        let arguments: Vec<&str> = parse::without_comment(&section.arguments).split_whitespace().collect();
        let mut words: Vec<&OsStr> = ["/bin/sh", "-ex"].map(OsStr::new).into();
        let command;
        match arguments.iter().position(|word| *word == "-c") {
            Some(at) if at + 1 < arguments.len() => {
                // A shell, and maybe options of it: `%post -c /bin/bash -e`.
                words.extend(arguments[..at].iter().map(OsStr::new));
                command = format!("{} {SCRIPT}", arguments[at + 1..].join(" "));
                words.extend([OsStr::new("-c"), OsStr::new(&command)]);
            }
            Some(_) => {
                let cause = "%post -c is followed by a shell";
                return Err(Refusal::new(Kind::Build, at(&self.file, section.line), cause));
            }
            None => {
                words.extend(arguments.iter().map(OsStr::new));
                words.push(OsStr::new(SCRIPT));
            }
        }
        root.write(Path::new(SCRIPT), 0o755, section.text.as_bytes())?;
        self.run(&section, "%post", &words, root, workshop)?;
        root.remove(Path::new(SCRIPT))
    }

    /// Runs a command in the image, with the image's variables.
    fn run(
        &self,
        section: &Section,
        name: &str,
        words: &[&OsStr],
        root: &mut Root,
        workshop: &Workshop,
    ) -> Result<(), Refusal> {
        let shell = ["/bin/sh", "-c", inside::WITH_VARIABLES, "sh"].map(OsStr::new);
        let mut variables = Vec::new();
        for prefix in ["APPTAINER", "SINGULARITY"] {
            variables.push((format!("{prefix}_ENVIRONMENT"), VARIABLES.to_owned()));
            variables.push((format!("{prefix}_LABELS"), LABELS.to_owned()));
        }
        let task = Task {
            shown: format!("{}: {name}", at(&self.file, section.line)),
            words: shell.iter().chain(words).map(|word| (*word).to_owned()).collect(),
            variables: variables.iter().map(|(name, value)| (name.as_str(), value.clone())).collect(),
        };
        let before = root.before();
        let done = inside::run(&task, root, workshop);
        root.after(before);
        done
    }
}
