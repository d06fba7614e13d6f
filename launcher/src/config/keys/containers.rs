//! Keys about what containers show and get.
#![forbid(unsafe_code)]

use super::{Key, Unset, Value};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "binds",
        Value::Items(BIND),
        Unset::Value("[]"),
        "Files and directories of the node that every container shows, besides `/proc`, `/sys`, `/dev`, `/tmp`, `/var/tmp`, the \
         home and the working directory. The user's own permissions apply as always.",
    )
    .example(
        "binds:\n- source: /gpfs\n  required: false\n- source: /scratch\n  required: false\n- source: /work\n  required: \
         false\n- source: /apps/licences\n  target: /opt/licences\n  mode: ro\n  required: false",
    ),
    Key::new(
        "options",
        Value::Options,
        Unset::Value("{}"),
        "Defaults for options that the user does not give, by their names without `container-`. An option without a key has \
         the default of coracle-container(7).",
    )
    .page("configure.md#defaults-for-options")
    .example("#options:\n#  home: no\n#  env: [OMP_NUM_THREADS, SITE=here]\n#  scope: steps"),
    Key::new(
        "mpi",
        Value::Named("NAME", PROFILE),
        Unset::Value("{}"),
        "MPI libraries of the host that may replace an image's, with `--container-mpi=NAME` or `auto` (the first of the file \
         that fits). `coracle config check` prints the requirements for images.",
    )
    .page("mpi.md")
    .example(
        "#mpi:\n#  openmpi:\n#    libraries: [/opt/openmpi/lib/libmpi.so.40, /opt/openmpi/lib/libmpi_mpifh.so.40]\n#    \
         dependencies: [/opt/openmpi/lib/libopen-rte.so.40, /opt/openmpi/lib/libopen-pal.so.40, \
         /opt/pmix/lib/libpmix.so.2]\n#    folders: [/opt/openmpi/lib/openmpi, /opt/openmpi/share/openmpi, {source: /opt/site/etc, target: /opt/openmpi/etc}]\n#    env: [OPAL_PREFIX=/opt/openmpi, UCX_TLS=all]",
    ),
    Key::new(
        "gpu",
        Value::Keys(GPU),
        Unset::Value("{}"),
        "Origin of the files of a GPU's driver. Containers show the GPUs that Slurm gave; `options: {gpu: none}` turns that \
         off.",
    )
    .page("gpus.md")
    .example(
        "#gpu:\n#  driver: auto\n#  cdi: [/etc/cdi, /var/run/cdi]\n#  libraries: [libmy_tool.so, \
         /opt/vendor/lib/libx.so.1]\n#  programs: [/opt/vendor/bin/tool]\n#  files: [/run/vendor.sock]",
    ),
    Key::new(
        "devices",
        Value::Items(DEVICE),
        Unset::Value("[]"),
        "Device nodes of the node that containers have, or do not have, besides the usual ones, the interconnect and what Slurm \
         gave. Of several rules for a device node the last counts.",
    )
    .page("gpus.md")
    .example("#devices:\n#- path: /dev/fuse\n#- {path: /dev/infiniband/umad*, rule: deny}"),
    Key::new(
        "writable_limit",
        Value::Size,
        Unset::Value("1g"),
        "Maximum of memory for `--container-writable` on each node, and its value without a size.",
    )
    .example("writable_limit: 1g"),
    Key::new(
        "slurm_client",
        Value::Keys(CLIENT),
        Unset::Value("{}"),
        "The node's Slurm commands (srun, sbatch, squeue, scancel, scontrol, …), which work in every image as far as they are \
         found. Only directories that are not where Slurm is usually installed need a key; `none` leaves the commands out.",
    )
    .or("none")
    .page("configure.md#slurm-commands-inside-of-images")
    .example(
        "#slurm_client:\n#  bin: /opt/slurm/bin\n#  conf: /etc/slurm\n#  plugins: [/opt/slurm/lib/slurm]\n#  libraries: \
         [/opt/pmix/lib]",
    ),
];

const BIND: &[Key] = &[
    Key::new("source", Value::Path, Unset::Refused, "Path on the node."),
    Key::new("target", Value::Path, Unset::Found("`source`"), "Path in the container."),
    Key::new("mode", Value::Words(&[("rw", "writable"), ("ro", "read-only")]), Unset::Value("rw"), "Access."),
    Key::new(
        "required",
        Value::Words(&[
            ("true", "a node without `source` refuses to start containers"),
            ("false", "containers of such a node lack it"),
        ]),
        Unset::Value("true"),
        "Need for the source.",
    ),
];

const PROFILE: &[Key] = &[
    Key::new(
        "libraries",
        Value::List("/PATH"),
        Unset::Refused,
        "Libraries with which programs are linked, by absolute path on the host; links are followed.",
    ),
    Key::new(
        "dependencies",
        Value::List("/PATH"),
        Unset::Value("[]"),
        "Libraries that these need; images get them even if they have their own. Never parts of glibc. A library that is not \
         listed must be in the image.",
    ),
    Key::new(
        "folders",
        Value::Items(&[
            Key::new("source", Value::Path, Unset::Refused, "Path on the host."),
            Key::new("target", Value::Path, Unset::Found("`source`"), "Path in the container."),
        ]),
        Unset::Value("[]"),
        "Directories that they open by path (components, help texts, configuration), read-only. A path alone stands for a \
         directory that has the same path in the container.",
    )
    .or("[/PATH, …]"),
    Key::new(
        "env",
        Value::List("NAME=VALUE"),
        Unset::Value("[]"),
        "Variables, set as the site's `options: env` is: `--container-env` wins.",
    ),
];

const GPU: &[Key] = &[
    Key::new(
        "driver",
        Value::Words(&[
            ("auto", "a CDI specification that has the granted devices, else the loader's list"),
            ("cdi", "a specification, and without one no container with a GPU starts"),
            ("libraries", "the loader's list, never a specification"),
            ("none", "device nodes only"),
        ]),
        Unset::Value("auto"),
        "Source of the list of files.",
    ),
    Key::new(
        "cdi",
        Value::List("/PATH"),
        Unset::Value("[/etc/cdi, /var/run/cdi]"),
        "Directories of specifications; a later one takes precedence.",
    ),
    Key::new(
        "libraries",
        Value::List("NAME"),
        Unset::Value("[]"),
        "Libraries besides the known ones: names in the loader's list, or files.",
    ),
    Key::new("programs", Value::List("NAME"), Unset::Value("[]"), "Programs besides the known ones: names, or files."),
    Key::new(
        "files",
        Value::List("/PATH"),
        Unset::Value("[]"),
        "Files, sockets and directories, which appear at their own path.",
    ),
];

const DEVICE: &[Key] = &[
    Key::new(
        "path",
        Value::Text("/dev/PATTERN"),
        Unset::Refused,
        "Device nodes: `*` and `?` match no slash, `**` matches any directories.",
    ),
    Key::new(
        "rule",
        Value::Words(&[("allow", "containers have them"), ("deny", "containers do not have them")]),
        Unset::Value("allow"),
        "The decision.",
    ),
];

const CLIENT: &[Key] = &[
    Key::new(
        "bin",
        Value::Path,
        Unset::Found(
            "in a step `bin` beside the `sbin` of its slurmstepd; else the first with an srun of `/usr/bin`, \
             `/usr/local/bin`, `/opt/slurm/bin`, `/opt/slurm/current/bin`, …",
        ),
        "Directory of the commands.",
    ),
    Key::new(
        "conf",
        Value::Path,
        Unset::Found("slurmd's `SLURM_CONF`, `etc` beside `bin`, `/etc/slurm`, `/run/slurm/conf`"),
        "Directory of slurm.conf.",
    ),
    Key::new(
        "plugins",
        Value::List("/PATH"),
        Unset::Found("PluginDir of slurm.conf, RUNPATH of srun, the usual places"),
        "Directories of Slurm's plugins.",
    ),
    Key::new(
        "libraries",
        Value::List("/PATH"),
        Unset::Value("[]"),
        "Further directories with libraries that are neither below `/usr` nor beside the loader.",
    ),
];
