//! Rules: policy of coracle.yaml for everybody, or for one partition, account, QOS, user or group.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::values::SiteValue;
use super::{Absolute, Config, Directories, UserImages};
use coracle::options::{Id, OPTIONS, RawOptions, Spec};
use coracle::report::Refusal;
use coracle::request::{self, Choice, Request, Size};

/// Passes the keys of a rule, each with the type of its value, to the macro that is named. It is the only list of these
/// keys: [`Rule`], the top level of [`Config`] and the effective policy are made from it.
macro_rules! rule_keys {
    ($define:ident) => {
        $define! {
            /// Image of steps that ask for none.
            default_image: DefaultImage,
            /// True if steps must run in a container.
            required: YesNo,
            /// Reader of images that no rule of `image_paths` covers. Without it they are refused.
            user_images: UserImages,
            /// Policy on directories of the node as images; unset means that they are not images.
            directories: Directories,
            /// Digests that an image may have.
            digests: Allowed<Digest>,
            /// Signers of which one must have signed the image.
            signers: Allowed<Fingerprint>,
            /// Maximum size of an image file.
            max_image_size: MaxSize,
            /// Directories from which users may bind.
            bind_allow: Allowed<Absolute>,
            /// Directories that containers do not show.
            bind_deny: HiddenPaths,
            /// Options that users may use.
            user_options: Allowed<OptionKey>,
        }
    };
}
pub(crate) use rule_keys;

macro_rules! define_rule {
    ($($(#[$doc:meta])* $key:ident: $value:ty,)*) => {
        /// Rule of one scope; a wider scope decides the keys that it does not set.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Rule {
            $($(#[$doc])* pub $key: Option<$value>,)*
        }
    };
}

rule_keys!(define_rule);

impl Config {
    /// True if `has` holds for the rule of any scope.
    pub fn any_rule(&self, has: impl Fn(&Rule) -> bool) -> bool {
        let scopes = [&self.partitions, &self.accounts, &self.qos, &self.users, &self.groups];
        has(&self.top()) || scopes.iter().flat_map(|scope| &scope.0).any(|(_, rule)| has(rule))
    }
}

/// Rules by name, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope(pub Vec<(String, Rule)>);

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rules;

        impl<'de> Visitor<'de> for Rules {
            type Value = Scope;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("names, each with the keys of its rule")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scope, A::Error> {
                let (mut rules, mut known) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name.is_empty() {
                        return Err(de::Error::custom("a name is empty"));
                    }
                    if !known.insert(name.clone()) {
                        return Err(de::Error::custom(format!("`{name}` stands there twice")));
                    }
                    rules.push((name, map.next_value()?));
                }
                Ok(Scope(rules))
            }
        }

        deserializer.deserialize_map(Rules)
    }
}

/// List of allowed values; `any` removes the limit of a wider scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<T> {
    /// Everything.
    Any,
    /// Only these.
    Only(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Allowed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrList<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for WordOrList<T> {
            type Value = Allowed<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("any, or a list")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Allowed<T>, E> {
                match word {
                    "any" => Ok(Allowed::Any),
                    _ => Err(E::custom(format!("any or a list is expected, not {word:?}"))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Allowed<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Allowed::Only(items))
            }
        }

        deserializer.deserialize_any(WordOrList(PhantomData))
    }
}

impl<T: fmt::Display> fmt::Display for Allowed<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
            Self::Only(list) => write_list(out, list),
        }
    }
}

/// `[a, b]`
fn write_list<T: fmt::Display>(out: &mut fmt::Formatter<'_>, list: &[T]) -> fmt::Result {
    let items: Vec<String> = list.iter().map(T::to_string).collect();
    write!(out, "[{}]", items.join(", "))
}

/// Directories of the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HiddenPaths(pub Vec<Absolute>);

impl fmt::Display for HiddenPaths {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(out, &self.0)
    }
}

/// Image of steps that ask for none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DefaultImage {
    /// No image: such steps run on the node.
    None,
    /// The image, in the form of `--container`.
    Image(Box<Request>),
}

impl TryFrom<String> for DefaultImage {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text != "none" && !text.starts_with('/') {
            return Err(format!("`default_image` is none or an absolute path, not {text:?}"));
        }
        match Request::parse(&RawOptions::default(), text.as_ref(), Path::new("/")) {
            Ok(Choice::Host) => Ok(Self::None),
            Ok(Choice::Container(request)) => Ok(Self::Image(request)),
            Err(error) => Err(format!("`default_image` {text:?}: {}", Refusal::from(error).cause)),
        }
    }
}

impl fmt::Display for DefaultImage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::Image(request) => request.what.fmt(out),
        }
    }
}

/// `yes` or `no`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SiteValue")]
pub struct YesNo(pub bool);

impl TryFrom<SiteValue> for YesNo {
    type Error = String;
    fn try_from(value: SiteValue) -> Result<Self, String> {
        value.answer().map(Self).ok_or_else(|| "`required` is yes or no".into())
    }
}

impl fmt::Display for YesNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0 { "yes" } else { "no" })
    }
}

/// SHA-256 of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(pub request::Digest);

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digest = request::Digest::parse(text.as_ref());
        digest.map(Self).map_err(|error| format!("{text:?}: {}", Refusal::from(error).cause))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Signer: the fingerprint of an OpenPGP key (RFC 4880 section 12.2, RFC 9580 section 5.5.4) in upper-case hex, or
/// `SHA256:` and the digest of a PEM key as Apptainer prints it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(pub String);

impl TryFrom<String> for Fingerprint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("SHA256:") {
            let digest = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte));
            return match digest && (43..=64).contains(&rest.len()) {
                true => Ok(Self(text)),
                false => Err(format!("{text:?} is no SHA256: fingerprint")),
            };
        }
        // gpg prints the digits in groups of four.
        let digits: String = text.chars().filter(|letter| *letter != ' ').collect::<String>().to_ascii_uppercase();
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match hex && [40, 64].contains(&digits.len()) {
            true => Ok(Self(digits)),
            false => Err(format!("{text:?} is no fingerprint: 40 or 64 hex digits, or SHA256:… of a PEM key")),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Maximum size of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MaxSize {
    /// No limit: `any`.
    Any,
    /// Number of bytes.
    Bytes(Size),
}

impl TryFrom<String> for MaxSize {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let size = Size::parse(text.as_ref()).map(Self::Bytes);
        size.map_err(|error| format!("`max_image_size` {text:?}: {}", Refusal::from(error).cause))
    }
}

impl fmt::Display for MaxSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
            Self::Bytes(size) => write!(out, "{} bytes", size.0),
        }
    }
}

/// Option that users may use, by its name without `container-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct OptionKey(pub Id);

impl TryFrom<String> for OptionKey {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        let spec = OPTIONS.iter().find(|spec| spec.key == word);
        spec.map(|spec| Self(spec.id)).ok_or_else(|| format!("unknown option `{word}`"))
    }
}

impl fmt::Display for OptionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Spec::of(self.0).map_or("", |spec| spec.key))
    }
}
