//! Keys about the start of steps, and about what is written of them.
#![forbid(unsafe_code)]

use super::{Key, Unset, Value};

pub(super) const KEYS: &[Key] = &[
    Key::new(
        "start_timeout",
        Value::Number(1, 45),
        Unset::Value("20"),
        "Seconds until a step that waits for its container is refused: below UnkillableStepTimeout of slurm.conf.",
    )
    .example("start_timeout: 20"),
    Key::new(
        "log",
        Value::Words(&[
            ("auto", "the journal, else syslog"),
            ("journal", "systemd's journal"),
            ("syslog", "`/dev/log`"),
            ("none", "no line"),
        ]),
        Unset::Value("auto"),
        "Target of one line for each step and node.",
    )
    .page("observe.md#records")
    .example("log: auto"),
    Key::new(
        "log_plan",
        Value::YesNo,
        Unset::Value("no"),
        "`yes` writes each line of a step's plan beside its log line, as `coracle explain` prints it.",
    )
    .example("log_plan: no"),
    Key::new("audit", Value::Keys(AUDIT), Unset::Value("{}"), "Further targets of the record of each step and node.")
        .page("observe.md#records")
        .example(
            "#audit:\n#  file: /var/log/coracle/audit.jsonl\n#  required: no\n#  comment: no\n#  users: \
             /var/lib/coracle/records",
        ),
    Key::new(
        "metrics",
        Value::Keys(&[Key::new(
            "file",
            Value::Path,
            Unset::Nothing,
            "Local file in a directory that only root can write.",
        )]),
        Unset::Value("{}"),
        "Counters of each node's steps, for the textfile collector of Prometheus' node_exporter: starts, refusals by kind, and \
         the duration of each phase of a start.",
    )
    .page("observe.md#counters")
    .example("#metrics:\n#  file: /var/lib/node_exporter/coracle.prom"),
];

const AUDIT: &[Key] = &[
    Key::new(
        "file",
        Value::Path,
        Unset::Nothing,
        "Local file that gets each record as a line of JSON. Only root may be able to write the directories above (on Ubuntu \
         others can write `/var/log`).",
    ),
    Key::new(
        "required",
        Value::YesNo,
        Unset::Value("no"),
        "`yes`: no container starts unless its record was written to `file`.",
    ),
    Key::new(
        "comment",
        Value::YesNo,
        Unset::Value("no"),
        "`yes` puts image and digest into the job's comment, unless its user has set one.",
    ),
    Key::new(
        "users",
        Value::Path,
        Unset::Found("`/var/lib/coracle/records`, on nodes that have it"),
        "Directory with the records that each user may read of their own steps; `none`: there are none.",
    )
    .or("none"),
];
