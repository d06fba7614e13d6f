#![forbid(unsafe_code)]

use crate::options::{Binds, Error, Id, Naming, OPTIONS, RawOptions, Settings, Spec, inside};
use crate::request::{ImageRef, Request, What};
use proptest::prelude::*;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const HERE: &str = "/home/alice";

fn parsed(given: &[(Id, OsString)]) -> Result<Settings, Error> {
    let mut raw = RawOptions::default();
    given.iter().for_each(|(id, value)| raw.take(Spec::of(*id).unwrap(), value.clone()));
    Settings::parse(&raw, Path::new(HERE))
}

/// Words of settings, with the paths byte by byte, which a comparison of paths does not do.
fn words(settings: &Settings) -> Vec<(Id, OsString)> {
    settings.words().map(|(key, word)| (Spec::of_key(key).unwrap().id, word)).collect()
}

/// Reads settings from their words elsewhere, and from the environment.
fn check_inverse(settings: &Settings) -> Result<(), TestCaseError> {
    let written = words(settings);
    let mut raw = RawOptions::default();
    for (id, word) in &written {
        prop_assert!(!word.is_empty(), "{id:?}");
        raw.take(Spec::of(*id).unwrap(), word.clone());
    }
    let again = Settings::parse(&raw, Path::new("/elsewhere"));
    prop_assert_eq!(again.as_ref().map(words), Ok(written));
    prop_assert_eq!(again.as_ref(), Ok(settings));

    let image = ImageRef { path: "/i".into(), typed: "i".into() };
    // Nothing comes before a request, so that `none` has nothing left to drop.
    let settings = Settings { binds: Binds { afresh: false, ..settings.binds.clone() }, ..settings.clone() };
    let written = words(&settings);
    let sent = Request { what: What::Image(image), commands: false, inherited: true, settings };
    let text = sent.to_env();
    prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    let read = Request::from_env(OsStr::new(&text));
    prop_assert_eq!(read.as_ref().map(|read| words(&read.settings)), Ok(written));
    prop_assert_eq!(read, Ok(sent));
    Ok(())
}

/// Bytes that separate, quote or escape somewhere, and such that are no UTF-8 or end a line.
fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(b"\\:,;=%*/ \n\t\"'$~.\xff\xc3\x01".as_slice()),
        1 => 1u8..,
    ];
    prop::collection::vec(byte, 0..12)
}

fn quoted(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| if b"\\:,".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] }).collect()
}

fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    hostile_bytes().prop_map(|bytes| [b"/".as_slice(), &bytes].concat())
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    let named = |bytes: &Vec<u8>| inside(Path::new(OsStr::from_bytes(bytes))).is_ok();
    hostile_bytes().prop_map(|bytes| [b"/t".as_slice(), &bytes].concat()).prop_filter("a target", named)
}

fn bind() -> impl Strategy<Value = Vec<u8>> {
    let join = |parts: &[&[u8]]| parts.join(&b':');
    prop_oneof![
        (hostile_path(), target(), prop::sample::select(vec!["ro", "rw"])).prop_map(move |(from, to, access)| join(&[
            &quoted(&from),
            &quoted(&to),
            access.as_bytes()
        ])),
        target().prop_map(move |to| join(&[b"tmpfs", &quoted(&to)])),
        (target(), 4096u64..1 << 50).prop_map(move |(to, size)| join(&[
            b"tmpfs",
            &quoted(&to),
            size.to_string().as_bytes()
        ])),
        Just(b"none".to_vec()),
        Just(Vec::new()),
    ]
}

fn variable() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        ("[A-B][A-Z0-9_]{0,3}", hostile_bytes())
            .prop_map(|(name, value)| [name.as_bytes(), b"=", &quoted(&value)].concat()),
        "[A-B][A-Z0-9_]{0,3}[*]?".prop_map(String::into_bytes),
        Just(b"*".to_vec()),
        Just(Vec::new()),
    ]
}

fn list(item: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(&b','))
}

/// Values of an option. A new option has its own here.
fn values(id: Id) -> BoxedStrategy<OsString> {
    let words = |words: &[&'static str]| prop::sample::select(words.to_vec()).prop_map(OsString::from).boxed();
    let bytes = |strategy: BoxedStrategy<Vec<u8>>| strategy.prop_map(OsString::from_vec).boxed();
    match id {
        Id::Bind => bytes(list(bind()).boxed()),
        Id::Env => bytes(list(variable()).boxed()),
        Id::Digest => "sha256:[0-9a-fA-F]{64}".prop_map(OsString::from).boxed(),
        Id::Workdir | Id::Overlay => bytes(hostile_path().boxed()),
        Id::Home | Id::CleanEnv | Id::Entrypoint => words(&["yes", "true", "on", "1", "no", "false", "off", "0"]),
        Id::Writable => prop_oneof![
            words(&["yes", "no", "4k", "1023t"]),
            (4096u64..1 << 50).prop_map(|size| size.to_string().into())
        ]
        .boxed(),
        Id::Scope => words(&["script", "steps", "all"]),
        Id::Mpi => {
            prop_oneof![words(&["none", "auto"]), "[a-zA-Z0-9][a-zA-Z0-9._-]{0,12}".prop_map(OsString::from)].boxed()
        }
        Id::Gpu => words(&["auto", "none"]),
    }
}

/// Any options of a command line, some more than once.
fn command_line() -> impl Strategy<Value = Vec<(Id, OsString)>> {
    let one =
        prop::sample::select(OPTIONS).prop_flat_map(|spec| values(spec.id).prop_map(move |value| (spec.id, value)));
    prop::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn words_are_read_back_as_the_same_settings(given in command_line()) {
        // Some are refused: binds with the same target, a working directory with `..`, two kinds of a writable layer.
        if let Ok(settings) = parsed(&given) {
            check_inverse(&settings)?;
        }
    }

    #[test]
    fn every_option_alone_is_read_back(values in OPTIONS.iter().map(|spec| values(spec.id)).collect::<Vec<_>>()) {
        for (spec, value) in OPTIONS.iter().zip(values) {
            if let Ok(settings) = parsed(&[(spec.id, value)]) {
                prop_assert!(settings.words().all(|(key, _)| key == spec.key));
                check_inverse(&settings)?;
            }
        }
    }

    #[test]
    fn text_of_any_kind_is_read_back_or_refused(text in hostile_bytes()) {
        for spec in OPTIONS {
            if let Ok(settings) = parsed(&[(spec.id, OsString::from_vec(text.clone()))]) {
                check_inverse(&settings)?;
            }
        }
    }
}

/// A value that no default gives, and its word.
fn sample(id: Id) -> (&'static str, &'static str) {
    match id {
        Id::Bind => (r"d\:1:/e\,f:ro", r"/home/alice/d\:1:/e\,f:ro"),
        Id::Digest => (
            "sha256:0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef",
            "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ),
        Id::Workdir => ("/w//x/", "/w/x"),
        Id::Home | Id::CleanEnv | Id::Entrypoint => ("on", "yes"),
        Id::Env => (r",A=1\,\\2\:3,", r"A=1\,\\2\\:3"),
        Id::Writable => ("4k", "4096"),
        Id::Overlay => ("o", "/home/alice/o"),
        Id::Scope => ("steps", "steps"),
        Id::Mpi => ("ours", "ours"),
        Id::Gpu => ("none", "none"),
    }
}

#[test]
fn every_option_sets_a_field_of_its_own() {
    for spec in OPTIONS {
        let (typed, word) = sample(spec.id);
        let settings = parsed(&[(spec.id, typed.into())]).unwrap();
        assert_eq!(words(&settings), [(spec.id, word.into())]);
        assert_eq!(settings.given(), [spec.id]);
        assert_eq!(Settings::default().or(&settings), settings, "{}", spec.key);
        assert_eq!(settings.clone().or(&Settings::default()), settings, "{}", spec.key);
        check_inverse(&settings).unwrap();
    }
}

#[test]
fn a_field_that_is_set_stays() {
    for (spec, other) in [
        (Id::Digest, format!("sha256:{}", "0".repeat(64))),
        (Id::Workdir, "/".into()),
        (Id::Home, "no".into()),
        (Id::CleanEnv, "no".into()),
        (Id::Writable, "no".into()),
        (Id::Overlay, "/p".into()),
        (Id::Entrypoint, "no".into()),
        (Id::Scope, "all".into()),
        (Id::Mpi, "none".into()),
        (Id::Gpu, "auto".into()),
    ] {
        let mine = parsed(&[(spec, sample(spec).0.into())]).unwrap();
        let jobs = parsed(&[(spec, other.into())]).unwrap();
        assert_ne!(mine, jobs);
        assert_eq!(mine.clone().or(&jobs), mine);
    }
}

#[test]
fn a_writable_layer_of_the_user_replaces_one_of_the_other_kind() {
    let mine = parsed(&[(Id::Writable, "1g".into())]).unwrap();
    let jobs = parsed(&[(Id::Overlay, "/o".into()), (Id::Home, "no".into())]).unwrap();
    let both = |one: &Settings, other: &Settings| words(&one.clone().or(other));
    assert_eq!(both(&mine, &jobs), [(Id::Home, "no".into()), (Id::Writable, "1073741824".into())]);
    assert_eq!(both(&jobs, &mine), words(&jobs));
}

#[test]
fn a_value_that_is_missing_is_named_by_its_option() {
    for spec in OPTIONS {
        let flag = Spec::of(spec.id).unwrap().flag(Naming::Container);
        assert_eq!(parsed(&[(spec.id, "".into())]), Err(Error::Empty(flag)));
    }
}

#[test]
fn a_list_of_binds_is_written_with_the_none_that_began_it() {
    let settings = parsed(&[(Id::Bind, "/a,none,/b,tmpfs:/c:4k".into()), (Id::Bind, "tmpfs:/d".into())]).unwrap();
    let wanted = ["none", "/b:/b:rw", "tmpfs:/c:4096", "tmpfs:/d"].map(|word| (Id::Bind, word.into()));
    assert_eq!(words(&settings), wanted);
    check_inverse(&settings).unwrap();
}

#[test]
fn no_path_in_the_environment_is_taken_from_a_directory() {
    let read = |field: &str| Request::from_env(OsStr::new(&format!("2:image=/i;{field}"))).map(|_| ());
    for (field, wrong) in [
        ("bind=x:/y", Error::BindSyntax("x".into())),
        ("bind=x", Error::BindSyntax("x".into())),
        ("overlay=x", Error::Overlay("x".into())),
        ("workdir=x", Error::BindTarget("x".into())),
    ] {
        assert_eq!(read(field), Err(wrong.into()), "{field}");
    }
    assert_eq!(read("bind=/x;overlay=/x;workdir=/x"), Ok(()));
}

#[test]
fn the_environment_has_the_checks_of_the_command_line() {
    for (field, id, value) in [
        ("bind=/b:/c:xx", Id::Bind, "/b:/c:xx"),
        ("bind=tmpfs", Id::Bind, "tmpfs"),
        ("digest=sha256:0", Id::Digest, "sha256:0"),
        ("workdir=", Id::Workdir, ""),
        ("home=maybe", Id::Home, "maybe"),
        ("env=SLURM_X=1", Id::Env, "SLURM_X=1"),
        ("clean-env=2", Id::CleanEnv, "2"),
        ("writable=2", Id::Writable, "2"),
        ("overlay=", Id::Overlay, ""),
        ("entrypoint=maybe", Id::Entrypoint, "maybe"),
        ("scope=job", Id::Scope, "job"),
        ("mpi=a/b", Id::Mpi, "a/b"),
        ("gpu=yes", Id::Gpu, "yes"),
    ] {
        let wrong = parsed(&[(id, value.into())]).unwrap_err();
        assert_eq!(Request::from_env(OsStr::new(&format!("2:image=/i;{field}"))), Err(wrong.into()), "{field}");
    }
}
