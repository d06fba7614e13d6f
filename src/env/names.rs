//! Classifies variables by their names.
#![forbid(unsafe_code)]

/// True if a shell can assign the variable: `[A-Za-z_][A-Za-z0-9_]*` (POSIX.1-2017, 3.235). Exported bash functions
/// (`BASH_FUNC_x%%`) have no such names; they pass unchanged.
pub fn is_proper(name: &[u8]) -> bool {
    let first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.first().is_some_and(first) && name.iter().all(|byte| first(byte) || byte.is_ascii_digit())
}

/// True for variables of Slurm about job and task, and for Coracle's own. Some of their values differ from task to
/// task, and an environment is made once for all tasks of a node.
pub fn is_slurms(name: &[u8]) -> bool {
    ["SLURM_", "SLURMD_", "PMI", "CORACLE_"].iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Variables that Slurm's gres plugins set for each task (gres_common.c, gres_common_gpu_set_env; gres_mps.c).
pub const GPUS: [&str; 4] = ["CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"];

fn tells_gpus(name: &[u8]) -> bool {
    GPUS.iter().any(|known| name == known.as_bytes()) || name == b"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
}

/// True for variables that an image never changes: those of Slurm and its GPUs, the user, and the user's language.
pub fn is_protected(name: &[u8]) -> bool {
    is_slurms(name)
        || tells_gpus(name)
        || matches!(name, b"HOME" | b"USER" | b"LOGNAME" | b"LANG" | b"LANGUAGE")
        || name.starts_with(b"LC_")
}

/// True for variables that pass with `clean`: protected ones, and those of Slurm's gres plugins, the terminal and the
/// network. False for the `CORACLE_CONTAINER_…` that gave the options of this step.
pub fn passes_clean(name: &[u8]) -> bool {
    (is_protected(name) && !name.starts_with(b"CORACLE_"))
        || matches!(
            name,
            b"TZ"
                | b"TERM"
                | b"SHELL"
                | b"PWD"
                | b"TMPDIR"
                | b"DISPLAY"
                | b"XAUTHORITY"
                | b"HIP_VISIBLE_DEVICES"
                | b"OMPI_MCA_btl_openib_if_include"
        )
        || name.ends_with(b"_proxy")
        || name.ends_with(b"_PROXY")
}

/// Variables that name files of the node to the dynamic loader (ld.so(8)), which would search for them in the image.
pub const LOADER: [&str; 3] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"];

/// Variables that name a directory in which programs write: the one of temporary files (POSIX.1-2017, 8.3), and the
/// one of a login session (XDG Base Directory Specification).
pub const DIRECTORIES: [&str; 2] = ["TMPDIR", "XDG_RUNTIME_DIR"];

/// True for variables of an Apptainer container in which the user submitted the job. The task is not in that container.
pub fn tells_of_apptainer(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"APPTAINER_").or_else(|| name.strip_prefix(b"SINGULARITY_"));
    rest.is_some_and(|rest| matches!(rest, b"APPNAME" | b"COMMAND" | b"CONTAINER" | b"ENVIRONMENT" | b"NAME"))
}

/// True for variables that a shell sets for itself, or that change how it reads. The values of the first that a script
/// would see are in no environment.
pub fn is_the_shells(name: &[u8]) -> bool {
    matches!(
        name,
        b"_" | b"IFS"
            | b"PWD"
            | b"OLDPWD"
            | b"SHLVL"
            | b"PPID"
            | b"OPTIND"
            | b"OPTARG"
            | b"OPTERR"
            | b"UID"
            | b"EUID"
            | b"GROUPS"
            | b"LINENO"
            | b"RANDOM"
            | b"SRANDOM"
            | b"SECONDS"
            | b"EPOCHSECONDS"
            | b"EPOCHREALTIME"
            | b"HOSTNAME"
            | b"HOSTTYPE"
            | b"MACHTYPE"
            | b"OSTYPE"
            | b"HISTCMD"
            | b"DIRSTACK"
            | b"FUNCNAME"
            | b"PIPESTATUS"
            | b"SHELLOPTS"
            | b"POSIXLY_CORRECT"
            | b"PS2"
            | b"PS4"
            | b"FUNCNEST"
    ) || name.starts_with(b"BASH")
        || name.starts_with(b"COMP_")
}
