//! Keys about images and their sources.
#![forbid(unsafe_code)]

use super::{Key, Unset, Value};

pub(super) const KEYS: &[Key] = &[
    Key::rule(
            "user_images",
            Value::Words(&[
                ("kernel", "the kernel mounts them: fast, but a crafted image meets the kernel's squashfs or erofs code (SECURITY.md)"),
                ("fuse", "squashfuse_ll (package squashfuse) reads them as the user, one process for each node and step"),
                ("deny", "they are refused"),
            ]),
            "Handling of images that no `image_paths` rule trusts, because their users can change them. A rule of a scope can set it, too. There is no default, \
             because the choice is the site's: while it is unset they are refused. An image, or a directory, on a FUSE \
             file system that a user has mounted (`user_id` other than 0) is refused in steps for every value: its server \
             could keep tasks from ending, and so drain the node.",
    )
    .example("user_images: kernel"),
    Key::new(
        "registry_images",
        Value::Words(&[
            ("deny", "refused, as if unset: the error names the command that makes a file of it"),
            ("file", "a file of the user, below their cache directory"),
            ("store", "an image in the user's part of the store"),
        ]),
        Unset::Nothing,
        "Meaning of `--container=docker://…` where a job is submitted.",
    )
    .page("configure.md#images-of-registries")
    .example("#registry_images: file"),
    Key::new(
        "image_paths",
        Value::Items(&[
            Key::new("path", Value::Path, Unset::Refused, "Directory; images may be anywhere below it."),
            Key::new(
                "owner",
                Value::Text("USER"),
                Unset::Found("`root`"),
                "Required owner of the image file, by name or number. No other user may be able to write it.",
            ),
            Key::new(
                "signers",
                Value::List("FINGERPRINT"),
                Unset::Nothing,
                "Signers of which one must have signed all of the image, besides.",
            ),
        ]),
        Unset::Value("[]"),
        "Directories whose images are trusted.",
    )
    .example(
        "image_paths:\n- path: /opt/images\n  owner: root\n#  signers: [0123456789ABCDEF0123456789ABCDEF01234567]",
    ),
    Key {
        unset: Unset::Found("`deny`"),
        ..Key::rule(
            "directories",
            Value::Words(&[("deny", "refused"), ("allow", "allowed, if `user_images` and `image_paths` allow it, too")]),
            "A directory of the node as image. A rule of a scope can set it, too. Its owner can change it while it runs; below `image_paths` only the owner and \
             mode of its top count.",
        )
    }
    .example("directories: deny"),
    Key::new(
        "store",
        Value::Keys(STORE),
        Unset::Value("{}"),
        "Images that users copy in with `coracle cp`. They run for each value of `user_images`, because nobody can change \
         them any more.",
    )
    .page("trust.md#the-store")
    .example(
        "#store:\n#  path: /var/lib/coracle/store\n#  owner: coracle\n#  max_images: 20\n#  max_bytes: 200g\n#  scanner: \
         [/usr/local/sbin/scan-image, --quiet]\n#  scanner_timeout: 600",
    ),
    Key::new(
        "squashfuse",
        Value::Path,
        Unset::Found("`/usr/bin/squashfuse_ll`, `/usr/libexec/coracle/squashfuse_ll`"),
        "Path of squashfuse_ll, for `user_images: fuse`. It and every directory above must be writable by root only, and it \
         must be a program, not a script. A copy of it runs, so it cannot find libraries by `$ORIGIN`. The node's \
         `fs.suid_dumpable` must not be 1.",
    )
    .example("#squashfuse: /opt/squashfuse/bin/squashfuse_ll"),
    Key::new(
        "registries",
        Value::Named("HOST", REGISTRY),
        Unset::Value("{}"),
        "Access of `coracle pull` and `coracle build` to registries, by host and port.",
    )
    .page("configure.md#registries")
    .example(
        "#registries:\n#  docker.io:\n#    mirrors: [https://mirror.site.org, https://harbor.site.org/dockerhub, \
         http://10.0.0.1:5000]\n#  registry.site.org:5000:\n#    plain_http: yes",
    ),
];

const STORE: &[Key] = &[
    Key::new(
        "path",
        Value::Path,
        Unset::Value("/var/lib/coracle/store"),
        "Directory of the store, which all nodes see: `path/USER/NAME` are the images, `path/USER/.records/NAME` their \
         records (JSON).",
    ),
    Key::new(
        "owner",
        Value::Text("USER"),
        Unset::Value("coracle"),
        "Account that owns the files and runs the service, by name or number; never root.",
    ),
    Key::new("max_images", Value::Number(1, 100_000), Unset::Value("20"), "Maximum number of images of each user."),
    Key::new("max_bytes", Value::Size, Unset::Value("200g"), "Maximum size of all images of each user."),
    Key::new(
        "scanner",
        Value::List("PROGRAM, ARGUMENT"),
        Unset::Nothing,
        "Program that must accept an image, with its arguments; writable by root only. It runs as the account with the image \
         as standard input and `/proc/self/fd/0` as last argument, and `CORACLE_USER`, `CORACLE_NAME` and `CORACLE_DIGEST` in \
         its environment. Another exit status than 0 refuses the image. Its output is kept in the record, or shown to the \
         user if it refuses.",
    ),
    Key::new("scanner_timeout", Value::Number(1, 86_400), Unset::Value("600"), "Time limit of the scanner in seconds."),
];

const REGISTRY: &[Key] = &[
    Key::new(
        "mirrors",
        Value::List("http[s]://HOST[/PREFIX]"),
        Unset::Value("[]"),
        "Mirrors, asked in this order before the registry itself. A path behind the host is a prefix of the names of \
         repositories there.",
    ),
    Key::new("plain_http", Value::YesNo, Unset::Value("no"), "`yes` is for a registry of the site that has no TLS."),
];
