//! Resolves the effective policy of a job: for each key, the most specific scope that sets it wins.
//!
//! | | scope | of several | source |
//! |---|---|---|---|
//! | 1 | `users` | the first in the file | the step record; the name from the node's user database |
//! | 2 | `groups` | the first in the file | the same |
//! | 3 | `accounts` | | the job's facts |
//! | 4 | `qos` | | the job's facts |
//! | 5 | `partitions` | | the job's facts |
//! | 6 | top level | | |
//!
//! Each key is resolved independently: a key that a user's rule does not set is resolved by their groups' rules, and so
//! on. If a scope sets a key, and a missing fact leaves open if the scope applies to the job, the key is undecided, and
//! a step that needs it is refused. Only `default_image`, which allows nothing, is then resolved by the partition,
//! account and QOS that the job claims.
#![forbid(unsafe_code)]

use std::fmt;

use crate::config::{
    Absolute, Allowed, Config, DefaultImage, Digest, Directories, Fingerprint, HiddenPaths, ImagePath, MaxSize,
    OptionKey, Rule, Scope, UserImages, YesNo, rule_keys,
};
use coracle::report::{Kind, Refusal};

/// User and job attributes that select policy rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// User id, from the step record.
    pub uid: u32,
    /// User name, if the node's user database has one.
    pub user: Option<String>,
    /// Groups, from the step record, with their names if the node's user database has them.
    pub groups: Vec<(u32, Option<String>)>,
    /// Job attributes from root's sources.
    pub job: Job,
    /// Job attributes as the job itself claims them; not trusted, because the user can set any value.
    pub claims: Job,
}

/// Attributes of a job: `None` if not known, empty if the job has no such attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Partition in which the job runs.
    pub partition: Option<String>,
    /// Account that the job is charged to.
    pub account: Option<String>,
    /// Quality of service of the job.
    pub qos: Option<String>,
}

impl Job {
    /// Attributes of a user outside any job.
    pub fn none() -> Self {
        let nothing = || Some(String::new());
        Self { partition: nothing(), account: nothing(), qos: nothing() }
    }
}

/// Fact that a decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Name of the user.
    User,
    /// Name of this group of the user.
    Group(u32),
    /// Fact of the job.
    Job(&'static str),
}

/// Key that cannot be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Line of coracle.yaml that may or may not apply.
    pub rule: String,
    /// Missing fact.
    pub fact: Fact,
}

impl Missing {
    /// Refusal of `object`.
    pub fn refuse(&self, object: &str) -> Refusal {
        let refuse = |what: String| {
            Refusal::new(
                Kind::Policy,
                object,
                format!("the rule {} of the site needs {what}, not known here", self.rule),
            )
        };
        let names = "the user database of this node has no name for it; rules may have numbers instead of names";
        match self.fact {
            Fact::User => refuse("the user's name".into()).hint(names),
            Fact::Group(gid) => refuse(format!("the name of group {gid}")).hint(names),
            Fact::Job(fact) => refuse(format!("the job's {fact}"))
                .hint("plugstack.conf needs job_facts=prolog, since before the job began; see docs/admin/trust.md"),
        }
    }
}

/// Value, with the line of coracle.yaml that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value<T> {
    /// The value.
    pub value: T,
    /// Name of the line, such as `partitions.gpu.user_images`.
    pub rule: String,
}

/// Result of the rules for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling<T> {
    /// No rule sets the key.
    Silent,
    /// A rule sets this value.
    Said(Value<T>),
    /// A missing fact leaves the key undecided.
    Undecided(Missing),
}

impl<T> Ruling<T> {
    /// Value, if a rule sets one.
    pub fn said(&self) -> Result<Option<&Value<T>>, Missing> {
        match self {
            Self::Silent => Ok(None),
            Self::Said(value) => Ok(Some(value)),
            Self::Undecided(missing) => Err(missing.clone()),
        }
    }

    /// Line of coracle.yaml that sets the key, or may set it.
    fn rule(&self) -> Option<&str> {
        match self {
            Self::Silent => None,
            Self::Said(said) => Some(&said.rule),
            Self::Undecided(missing) => Some(&missing.rule),
        }
    }

    /// True if no rule sets the key.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent)
    }
}

impl<T: fmt::Display> fmt::Display for Ruling<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => out.write_str("-"),
            Self::Said(said) => said.value.fmt(out),
            Self::Undecided(missing) => match missing.fact {
                Fact::User => out.write_str("needs the user's name"),
                Fact::Group(gid) => write!(out, "needs the name of group {gid}"),
                Fact::Job(fact) => write!(out, "needs the job's {fact}"),
            },
        }
    }
}

macro_rules! define_rules {
    ($($(#[$doc:meta])* $key:ident: $value:ty,)*) => {
        /// Effective policy of one job.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Rules {
            $($(#[$doc])* pub $key: Ruling<$value>,)*
            /// For each rule of `image_paths`, its `signers` and the name of that line.
            paths: Vec<Option<(Vec<Fingerprint>, String)>>,
        }

        impl Rules {
            /// Each key with its value and the line that sets it.
            pub fn lines(&self) -> Vec<(&'static str, String, Option<&str>)> {
                vec![$((stringify!($key), self.$key.to_string(), self.$key.rule()),)*]
            }
        }

        /// Resolves the effective policy of a job.
        pub fn effective(config: &Config, facts: &Facts) -> Rules {
            let look = Resolver { config, facts, top: &config.top(), claimed: &facts.with_claims() };
            Rules {
                $($key: look.decide(stringify!($key), |rule| rule.$key.as_ref()),)*
                paths: config.image_paths.iter().enumerate().map(signers_of_path).collect(),
            }
        }
    };
}

rule_keys!(define_rules);

impl Rules {
    /// True if a rule limits digests: then the image's digest must be computed.
    pub fn want_digest(&self) -> bool {
        !matches!(&self.digests, Ruling::Silent | Ruling::Said(Value { value: Allowed::Any, .. }))
    }

    /// Required signers of images below the directory of a rule of `image_paths`, and the line that sets them.
    pub fn signers_of(&self, index: Option<usize>) -> Option<(&[Fingerprint], &str)> {
        let (list, rule) = self.paths.get(index?)?.as_ref()?;
        Some((list, rule))
    }

    /// True if an image that this rule of `image_paths` trusts must be signed: then its signers must be determined.
    pub fn want_signers(&self, index: Option<usize>) -> bool {
        self.signers_of(index).is_some()
            || !matches!(&self.signers, Ruling::Silent | Ruling::Said(Value { value: Allowed::Any, .. }))
    }
}

fn signers_of_path((index, path): (usize, &ImagePath)) -> Option<(Vec<Fingerprint>, String)> {
    path.signers.clone().map(|list| (list, format!("image_paths[{index}].signers")))
}

impl Facts {
    /// Known attributes of the job; in place of missing ones, those that the job claims.
    fn with_claims(&self) -> Job {
        let or = |known: &Option<String>, said: &Option<String>| {
            known.clone().or_else(|| said.clone()).or_else(|| Some(String::new()))
        };
        Job {
            partition: or(&self.job.partition, &self.claims.partition),
            account: or(&self.job.account, &self.claims.account),
            qos: or(&self.job.qos, &self.claims.qos),
        }
    }
}

/// Match of a rule with the user and the job.
enum Match {
    Yes,
    No,
    Unknown(Fact),
}

/// Scope: its key, its rules, and a function that matches a rule's name.
type Candidate<'a> = (&'a str, &'a Scope, &'a dyn Fn(&str) -> Match);

struct Resolver<'a> {
    config: &'a Config,
    facts: &'a Facts,
    top: &'a Rule,
    /// Attributes of the job; those that are not known as the job claims them.
    claimed: &'a Job,
}

impl Resolver<'_> {
    fn decide<T: Clone>(&self, key: &str, pick: impl Fn(&Rule) -> Option<&T>) -> Ruling<T> {
        // A default allows nothing, so a false claim gains nothing.
        let job = if key == "default_image" { self.claimed } else { &self.facts.job };
        let Config { users, groups, accounts, qos, partitions, .. } = self.config;
        let scopes: [Candidate<'_>; 5] = [
            ("users", users, &|name| self.user(name)),
            ("groups", groups, &|name| self.group(name)),
            ("accounts", accounts, &|name| is("account", &job.account, name)),
            ("qos", qos, &|name| is("QOS", &job.qos, name)),
            ("partitions", partitions, &|name| is("partition", &job.partition, name)),
        ];
        for (scope, rules, matches) in scopes {
            for (name, rule) in &rules.0 {
                let Some(value) = pick(rule) else { continue };
                let rule = || format!("{scope}.{name}.{key}");
                match matches(name) {
                    Match::No => {}
                    Match::Yes => return Ruling::Said(Value { value: value.clone(), rule: rule() }),
                    Match::Unknown(fact) => return Ruling::Undecided(Missing { rule: rule(), fact }),
                }
            }
        }
        match pick(self.top) {
            Some(value) => Ruling::Said(Value { value: value.clone(), rule: key.to_owned() }),
            None => Ruling::Silent,
        }
    }

    fn user(&self, name: &str) -> Match {
        match (name.parse::<u32>(), &self.facts.user) {
            (Ok(uid), _) if uid == self.facts.uid => Match::Yes,
            (Ok(_), _) => Match::No,
            (Err(_), Some(user)) if user == name => Match::Yes,
            (Err(_), Some(_)) => Match::No,
            (Err(_), None) => Match::Unknown(Fact::User),
        }
    }

    fn group(&self, name: &str) -> Match {
        let groups = &self.facts.groups;
        if let Ok(number) = name.parse::<u32>() {
            return if groups.iter().any(|(gid, _)| *gid == number) { Match::Yes } else { Match::No };
        }
        if groups.iter().any(|(_, known)| known.as_deref() == Some(name)) {
            return Match::Yes;
        }
        match groups.iter().find(|(_, known)| known.is_none()) {
            Some((gid, _)) => Match::Unknown(Fact::Group(*gid)),
            None => Match::No,
        }
    }
}

fn is(what: &'static str, known: &Option<String>, name: &str) -> Match {
    match known {
        // Slurm stores accounts and QOS in lower case, regardless of the user's spelling.
        Some(known) if known == name || (what != "partition" && known.eq_ignore_ascii_case(name)) => Match::Yes,
        Some(_) => Match::No,
        None => Match::Unknown(Fact::Job(what)),
    }
}
