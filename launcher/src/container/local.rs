//! Prepares the container of `coracle exec`, outside of a step.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::env::{INSIDE, Pair};
use crate::policy::Job;
use coracle::options::{Id, RawOptions, Spec, note_of_variable};
use coracle::report::{Kind, Refusal, clean};
use coracle::request::{Bind, Binds, Choice, ImageRef, Request, What};
use coracle::sys::Identity;
use nix::unistd::AccessFlags;

use crate::container::context::{Authority, Context, Options, Requester};
use crate::container::grants::{DeviceAccess, GrantSource, Grants, Provision};
use crate::container::userns;
use crate::slurm;

/// Container request of `coracle exec`, outside of Slurm.
pub struct LocalRequest<'a> {
    /// The options.
    pub raw: RawOptions,
    /// The image.
    pub image: &'a OsStr,
    /// Path of coracle.yaml.
    pub config: &'a Path,
    /// Name of the user of the container, if it is not the caller.
    pub user: Option<&'a str>,
}

/// Variables with the default binds of Apptainer's users.
const BIND_VARIABLES: [&str; 4] = ["APPTAINER_BIND", "SINGULARITY_BIND", "APPTAINER_BINDPATH", "SINGULARITY_BINDPATH"];

/// Fills options that the command line does not set from the `CORACLE_CONTAINER_…` variables, as srun does.
pub fn fill_from_variables(raw: &mut RawOptions) {
    raw.fill_from(|name: &CStr| std::env::var_os(OsStr::from_bytes(name.to_bytes())));
    let noted = std::env::var("SLURM_CORACLE_NOTED").unwrap_or_default();
    for (name, _) in std::env::vars_os() {
        // The command of the job has already printed notes about the variables that it had.
        let name = name.to_str().filter(|name| !INSIDE.contains(name) && noted.split(',').all(|known| known != *name));
        name.and_then(note_of_variable).into_iter().for_each(|note| eprintln!("coracle: note: {note}"));
    }
}

/// Variables for options of Apptainer's exec, run and shell (apptainer-exec(1)), without their prefix. Those for its
/// cache, logins, builds and messages are omitted, because they do not change a container. So are those for properties
/// that Coracle's containers always have: NV, ROCM, USERNS, NO_EVAL.
const APPTAINER_OPTIONS: [&str; 41] = [
    "ADD_CAPS",
    "ALLOW_SETUID",
    "APP",
    "APPLY_CGROUPS",
    "BLKIO_WEIGHT",
    "CLEANENV",
    "COMPAT",
    "CONTAIN",
    "CONTAINALL",
    "CPUS",
    "CPUSET_CPUS",
    "CWD",
    "DNS",
    "DROP_CAPS",
    "ENV",
    "ENV_FILE",
    "FAKEROOT",
    "FUSESPEC",
    "HOME",
    "HOSTNAME",
    "IPC",
    "KEEP_PRIVS",
    "MEMORY",
    "MOUNT",
    "NETWORK",
    "NO_HOME",
    "NO_MOUNT",
    "OVERLAY",
    "OVERLAYIMAGE",
    "PID",
    "PIDS_LIMIT",
    "PWD",
    "SCRATCH",
    "SCRATCHDIR",
    "SECURITY",
    "SHELL",
    "UTS",
    "WORKDIR",
    "WRITABLE",
    "WRITABLE_TMPFS",
    "UNSHARE_NET",
];

/// Note about those of Apptainer's variables that would change a container and are ignored, if there are any.
fn apptainer_note(variables: impl Iterator<Item = (OsString, OsString)>) -> Option<String> {
    // As parsed by Go's strconv.ParseBool.
    let says_no = |value: &OsStr| {
        ["", "0", "f", "F", "false", "FALSE", "False"].iter().any(|word| value.as_bytes() == word.as_bytes())
    };
    let is_option = |name: &str| {
        let rest = name.strip_prefix("APPTAINER_").or_else(|| name.strip_prefix("SINGULARITY_"));
        rest.is_some_and(|rest| APPTAINER_OPTIONS.contains(&rest))
    };
    let set = variables.filter(|(_, value)| !says_no(value));
    let mut names: Vec<String> =
        set.filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_option(name)).collect();
    names.sort();
    (!names.is_empty()).then(|| {
        format!(
            "not read: {}; of Apptainer's variables only APPTAINER_BIND, APPTAINER_BINDPATH and APPTAINERENV_NAME \
             count, and the options of coracle exec --help",
            names.join(", ")
        )
    })
}

/// Prints the note about Apptainer's variables that are ignored.
pub fn print_apptainer_note() {
    apptainer_note(std::env::vars_os())
        .iter()
        .for_each(|note| eprintln!("{}", clean(&format!("coracle: note: {note}"))));
}

/// Adds the binds of Apptainer's variables to those of its command line. For the same target, the command line's bind
/// takes precedence.
pub fn add_apptainer_binds(raw: &mut RawOptions, directory: &Path, variable: impl Fn(&str) -> Option<OsString>) {
    let Some(spec) = Spec::of(Id::Bind) else { return };
    for list in BIND_VARIABLES.iter().filter_map(|name| variable(name)) {
        let Ok(known) = Binds::parse(raw.values(Id::Bind), directory) else { return };
        if known.afresh {
            return;
        }
        for item in Binds::items(&list) {
            let target = Bind::parse(&item, directory).map(|bind| bind.target);
            // An invalid item is refused together with the others.
            if !known.list.iter().any(|bind| target.as_ref() == Ok(&bind.target)) {
                raw.take(spec, item);
            }
        }
    }
}

/// Container request of `coracle exec` whose options are resolved.
pub struct LocalRun {
    /// Inputs of the container.
    pub context: Context,
    /// The image.
    pub image: ImageRef,
    /// Devices of the container.
    pub provision: Provision,
    /// Working directory.
    pub directory: PathBuf,
}

impl LocalRequest<'_> {
    /// Resolves the options and the user. The job is unknown here, if there is one, and rules about jobs only concern
    /// steps.
    pub fn prepare(self) -> Result<LocalRun, Refusal> {
        let config = load(self.config, resolve_identity(self.user)?.1)?;
        self.prepare_for(config, Job::none())
    }

    /// Like [`Self::prepare`], with settings that are loaded already, and for this job.
    pub fn prepare_for(self, config: Config, job: Job) -> Result<LocalRun, Refusal> {
        let directory = std::env::current_dir().map_err(|cause| Refusal::new(Kind::Workdir, ".", cause.to_string()))?;
        let Choice::Container(mut request) = Request::parse(&self.raw, self.image, &directory)? else {
            return Err(Refusal::new(Kind::Usage, "none", "there is no container to enter"));
        };
        let What::Image(image) = request.what else {
            return Err(Refusal::new(Kind::Usage, "step", "only a job can join a step").hint("coracle exec --job JOB"));
        };
        let (identity, authority) = resolve_identity(self.user)?;
        let used = request.settings.given();
        let notes = request.settings.limit(config.writable_limit.0);
        let options = Options { settings: request.settings.or_site(&config.options.0), used, notes };
        let environment: Vec<_> = std::env::vars_os().collect();
        let slurmd = slurm::slurmd(Path::new("/"), &config.slurm_client, slurm::conf_from_environment().as_deref());
        let grants = Grants::find(slurmd.as_ref(), &environment, &GrantSource::Unprivileged);
        let requester = Requester { identity, authority, job, environment, daemon: None };
        let context = Context::new(config, options, requester, grants);
        // Some device nodes of GPUs are only read.
        let open = |path: &Path| nix::unistd::access(path, AccessFlags::R_OK).is_ok();
        let rules = DeviceAccess { open: &open, slurms: false };
        let provision = context.provide_devices(Some(&rules), &Provision::default())?;
        Ok(LocalRun { context, image, provision, directory })
    }
}

/// Enters the user's own user namespace, unless root makes the container: it gives the capabilities for mounting. Files
/// of others show no owner there, and descriptors that were opened before belong to another mount namespace.
pub fn enter_user_namespace(authority: Authority) -> Result<(), Refusal> {
    match authority {
        Authority::Root => Ok(()),
        Authority::Own => userns::enter(),
    }
}

/// Loads the site's settings with the privileges of this process.
pub fn load_settings(path: &Path) -> Result<Config, Refusal> {
    load(path, if nix::unistd::geteuid().is_root() { Authority::Root } else { Authority::Own })
}

/// Loads the site's settings. Settings that users may not read contain nothing about users, so the defaults apply.
fn load(path: &Path, authority: Authority) -> Result<Config, Refusal> {
    match Config::load(path) {
        Err(config::Error::Read(_, cause))
            if authority == Authority::Own && cause.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Ok(Config::default())
        }
        loaded => Ok(loaded?),
    }
}

/// Resolves the ids of `user`, or of this process, and the privileges with which its container is made.
pub fn resolve_identity(user: Option<&str>) -> Result<(Identity, Authority), Refusal> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let authority = if uid.is_root() { Authority::Root } else { Authority::Own };
    let Some(name) = user else {
        let groups = nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
        return Ok((Identity { uid: uid.as_raw(), gid: gid.as_raw(), groups }, authority));
    };
    let unknown = || Refusal::new(Kind::Usage, name, "no such user");
    let user = nix::unistd::User::from_name(name).ok().flatten();
    if authority == Authority::Own {
        return match user {
            Some(user) if user.uid == uid => resolve_identity(None),
            _ => Err(Refusal::new(Kind::Usage, "--user", "only root can be somebody else")),
        };
    }
    let user = user.ok_or_else(unknown)?;
    let text = CString::new(name).map_err(|_| unknown())?;
    let groups = nix::unistd::getgrouplist(&text, user.gid).map_err(|_| unknown())?;
    let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    Ok((Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }, authority))
}

/// The environment with HOME set, `always` for a user that root becomes, otherwise only if it is missing.
pub fn with_home(environment: &[Pair], home: Option<&Path>, always: bool) -> Vec<Pair> {
    let mut environment = environment.to_vec();
    let Some(home) = home else { return environment };
    if always {
        environment.retain(|(name, _)| name != "HOME");
    }
    if !environment.iter().any(|(name, _)| name == "HOME") {
        environment.push(("HOME".into(), home.into()));
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binds from a command line and Apptainer's variables.
    fn binds(command_line: &str) -> Vec<OsString> {
        let mut raw = RawOptions::default();
        raw.take(Spec::of(Id::Bind).unwrap(), command_line.into());
        add_apptainer_binds(&mut raw, Path::new("/d"), |name| match name {
            "APPTAINER_BIND" => Some(r"/b:/c,/d\,x:/d".into()),
            "SINGULARITY_BIND" => Some(r"/d\,x:/d,,/e:/f:ro,/g:/c".into()),
            "APPTAINER_BINDPATH" => Some("".into()),
            _ => None,
        });
        raw.values(Id::Bind).map(OsString::from).collect()
    }

    #[test]
    fn apptainers_variables_add_binds_once() {
        assert_eq!(binds("/a,/b:/c"), ["/a,/b:/c", r"/d\,x:/d", "/e:/f:ro"]);
    }

    #[test]
    fn a_home_is_set_for_another_user_or_if_it_is_missing() {
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let own = [pair("HOME", "/root"), pair("A", "1")];
        let home = Some(Path::new("/home/alice"));
        assert_eq!(with_home(&own, home, false), own);
        assert_eq!(with_home(&own, None, true), own);
        assert_eq!(with_home(&own, home, true), [pair("A", "1"), pair("HOME", "/home/alice")]);
        assert_eq!(with_home(&own[1..], home, false), [pair("A", "1"), pair("HOME", "/home/alice")]);
    }

    #[test]
    fn what_apptainer_would_have_read_is_told() {
        let note = |variables: &[(&str, &str)]| {
            apptainer_note(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
        };
        let all = [
            ("APPTAINER_WRITABLE_TMPFS", "1"),
            ("HOME", "/h"),
            ("APPTAINER_CACHEDIR", "/c"),
            ("SINGULARITY_PWD", "/d"),
        ];
        let said = note(&all).unwrap();
        assert!(said.starts_with("not read: APPTAINER_WRITABLE_TMPFS, SINGULARITY_PWD; of Apptainer's"), "{said}");
        for quiet in [
            ("APPTAINER_CONTAINALL", "false"),
            ("APPTAINER_HOME", ""),
            ("APPTAINER_BIND", "/a"),
            ("APPTAINERENV_HOME", "/a"),
            ("APPTAINER_NAME", "x.sif"),
            ("APPTAINER_CONTAINER", "/x.sif"),
            ("SINGULARITY_ENVIRONMENT", "/e"),
            ("APPTAINER_COMMAND", "exec"),
            ("APPTAINER_TMPDIR", "/t"),
            ("APPTAINER_NV", "1"),
            ("APPTAINERX_HOME", "1"),
        ] {
            assert_eq!(note(&[quiet]), None, "{quiet:?}");
        }
    }

    #[test]
    fn the_command_lines_bind_of_a_target_counts() {
        assert_eq!(binds("/x:/f"), ["/x:/f", "/b:/c", r"/d\,x:/d"]);
        assert_eq!(binds("none,/x"), ["none,/x"]);
        assert_eq!(binds("/a:b"), ["/a:b"]);
    }
}
