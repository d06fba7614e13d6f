//! Keys of rules, and their scopes.
#![forbid(unsafe_code)]

use super::{Key, Unset, Value};

pub(super) const TEXT: &str = "A rule decides who may run what. Its keys are those from `default_image` to \
    `user_options`, and `user_images` and `directories`. Each may be at the top level for everybody, or below a name \
    of a scope. For each key, the most specific scope that sets it wins: `users`, `groups` (the first in the file), \
    `accounts`, `qos`, `partitions`, everybody. An empty list allows nothing (an empty `bind_deny` hides nothing), \
    `any` removes the restriction of a wider scope. `coracle config check` shows the line that decides.";

pub(super) const KEYS: &[Key] = &[
    Key::rule(
        "default_image",
        Value::Text("/PATH[@sha256:HEX]"),
        "Image of steps that ask for none; needs `defaults=on` in plugstack.conf.",
    )
    .or("none")
    .example("#default_image: /opt/images/base.sif"),
    Key::rule(
        "required",
        Value::YesNo,
        "`yes`: no task runs on the node itself, and srun refuses `--task-epilog`; needs `defaults=on` in plugstack.conf.",
    )
    .page("trust.md#what-required-cannot-stop")
    .example("#required: no"),
    Key::rule("digests", Value::List("sha256:HEX"), "Digests of which an image must have one.")
        .or("any")
        .example("#digests: [sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855]"),
    Key::rule(
        "signers",
        Value::List("FINGERPRINT"),
        "Signers of which one must have signed all of the image: an OpenPGP fingerprint (40 or 64 hex digits), or `SHA256:…` \
         of a PEM key.",
    )
    .or("any")
    .example("#signers: [0123456789ABCDEF0123456789ABCDEF01234567]"),
    Key::rule("max_image_size", Value::Size, "Maximum size of an image file; a directory has no size.")
        .or("any")
        .example("#max_image_size: 50g"),
    Key::rule(
        "bind_allow",
        Value::List("/PATH"),
        "Directories of which one must contain what users bind (and `--container-overlay`).",
    )
    .or("any")
    .page("trust.md#binds")
    .example("#bind_allow: [/scratch, /work]"),
    Key::rule("bind_deny", Value::List("/PATH"), "Directories that containers never show, under whatever name.")
        .page("trust.md#binds")
        .example("#bind_deny: [/var/spool, /root]"),
    Key::rule(
        "user_options",
        Value::List("OPTION"),
        "Options that users may use, without `container-`; defaults of `options` do not count as use.",
    )
    .or("any")
    .example("#user_options: [bind, env, workdir, home]"),
    scope("users", "USER", "Rules of users, by name or number.")
        .example("#users:\n#  alice:\n#    required: no"),
    scope("groups", "GROUP", "Rules of groups, by name or number.")
        .example("#groups:\n#  developers:\n#    signers: any\n#    directories: allow"),
    scope("accounts", "ACCOUNT", "Rules of accounts; need `job_facts=prolog` in plugstack.conf.")
        .example("#accounts:\n#  industry:\n#    user_images: deny"),
    scope("qos", "QOS", "Rules of qualities of service; need `job_facts=prolog` in plugstack.conf.")
        .example("#qos:\n#  debug:\n#    max_image_size: 5g"),
    scope("partitions", "PARTITION", "Rules of partitions; need `job_facts=prolog` in plugstack.conf.")
        .example("#partitions:\n#  gpu:\n#    default_image: /opt/images/cuda.sif\n#    required: yes"),
];

const fn scope(name: &'static str, of: &'static str, text: &'static str) -> Key {
    Key::new(name, Value::Rules(of), Unset::Value("{}"), text)
}
