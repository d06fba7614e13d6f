#![forbid(unsafe_code)]

mod words;

use super::*;
use crate::options::{self, Id, Naming, Spec};
use crate::report::Refusal;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt;

fn raw(options: &[(Id, &str)]) -> RawOptions {
    let mut raw = RawOptions::default();
    for (id, value) in options {
        raw.take(Spec::of(*id).unwrap(), value.into());
    }
    raw
}

fn with(image: &str, options: &[(Id, &str)]) -> Result<Choice, Error> {
    Request::parse(&raw(options), OsStr::new(image), Path::new("/home/alice"))
}

fn parse(image: &str, binds: &[&str], digest: Option<&str>) -> Result<Choice, Error> {
    let binds = binds.iter().map(|bind| (Id::Bind, *bind));
    with(image, &binds.chain(digest.map(|digest| (Id::Digest, digest))).collect::<Vec<_>>())
}

fn settings(options: &[(Id, &str)]) -> Settings {
    match with("/i", options) {
        Ok(Choice::Container(request)) => request.settings,
        other => panic!("{options:?}: {other:?}"),
    }
}

fn fields(settings: &Settings) -> String {
    settings.words().map(|(key, word)| format!(";{key}={}", word.to_str().unwrap())).collect()
}

fn wrong(id: Id, value: &str) -> String {
    Refusal::from(with("/i", &[(id, value)]).unwrap_err()).line()
}

fn request(image: &str, binds: &[&str]) -> Request {
    match parse(image, binds, None) {
        Ok(Choice::Container(request)) => *request,
        other => panic!("{image} {binds:?}: {other:?}"),
    }
}

fn refusal(image: &str, binds: &[&str], digest: Option<&str>) -> String {
    Refusal::from(parse(image, binds, digest).unwrap_err()).line()
}

const HEX: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

#[test]
fn a_relative_image_is_taken_from_the_working_directory() {
    assert_eq!(request("img.sif", &[]).image().unwrap().path, Path::new("/home/alice/img.sif"));
    assert_eq!(request("a/b.sif", &[]).image().unwrap().path, Path::new("/home/alice/a/b.sif"));
    assert_eq!(request("/x/b.sif", &[]).image().unwrap().path, Path::new("/x/b.sif"));
    assert_eq!(parse("none", &[], None), Ok(Choice::Host));
    assert_eq!(request("./none", &[]).image().unwrap().path, Path::new("/home/alice/none"));
}

#[test]
fn a_digest_may_stand_behind_the_image_or_alone_but_not_twice_differently() {
    let pinned = format!("/i.sif@sha256:{HEX}");
    let Ok(Choice::Container(one)) = parse(&pinned, &[], None) else { panic!() };
    assert_eq!(one.image().unwrap().path, Path::new("/i.sif"));
    assert_eq!(one.settings.digest.unwrap().to_string(), format!("sha256:{}", HEX.to_lowercase()));
    assert!(parse(&pinned, &[], Some(&format!("sha256:{HEX}"))).is_ok());
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(refusal(&pinned, &[], Some(&other)).ends_with("the one of --container-digest differ [usage]"));
    for wrong in ["sha256:", "md5:00", "sha256:zz", &format!("sha256:{HEX}00"), &format!("sha256:{}é", &HEX[2..])] {
        assert!(refusal("/i", &[], Some(wrong)).contains("not a digest"), "{wrong}");
    }
}

#[test]
fn binds_have_one_to_three_parts() {
    let binds = request("/i", &["/a,/b:/c", "d:/e:ro", "tmpfs:/t,tmpfs:/u:4m,./tmpfs:/v"]).settings.binds;
    let shown: Vec<String> =
        binds.list.iter().map(|bind| format!("{:?} {:?} {}", bind.source, bind.target, bind.access.word())).collect();
    let node = |path: &str, rest: &str| format!("Node({path:?}) {rest}");
    assert_eq!(
        shown,
        [
            node("/a", r#""/a" rw"#),
            node("/b", r#""/c" rw"#),
            node("/home/alice/d", r#""/e" ro"#),
            r#"Memory(None) "/t" rw"#.to_owned(),
            format!(r#"Memory(Some(Size({}))) "/u" rw"#, 4 << 20),
            node("/home/alice/./tmpfs", r#""/v" rw"#),
        ]
    );
}

#[test]
fn wrong_binds_are_named() {
    for wrong in [":", "/a:", ":/b", "/a:/b:", "/a:/b:rx", "/a:/b:ro:rw", "/a,:", "tmpfs"] {
        assert!(refusal("/i", &[wrong], None).contains("not a bind: SRC[:DST[:ro|rw]] is wanted"), "{wrong:?}");
    }
    for wrong in ["/a:b", "/a:/b/../c", "/a:/b/./c", "../x", "/a:."] {
        assert!(refusal("/i", &[wrong], None).contains("must be absolute and have no . or .."), "{wrong:?}");
    }
    for wrong in
        ["/a:/", "/a:///", "/a:/proc", "/a:/proc/self", "/dev", "/a:/sys//kernel", "/dev/shm", "/a:/run/coracle/x"]
    {
        assert!(refusal("/i", &[wrong], None).contains("nothing may be bound over"), "{wrong:?}");
    }
    let many: Vec<String> = (0..=options::MAX_BINDS).map(|index| format!("/a{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(request("/i", &many[1..]).settings.binds.list.len(), 128);
    assert!(refusal("/i", &many, None).contains("129 binds, at most 128"));
    let long = format!("/{}", "a".repeat(MAX_LEN));
    assert!(refusal(&long, &[], None).contains("at most 32768 are possible"));
}

#[test]
fn what_no_node_resolves_is_refused() {
    assert!(refusal("", &[], None).contains("the name of an image is missing"));
    for wrong in ["docker://alpine", "oras://x/y"] {
        assert!(refusal(wrong, &[], None).contains("no kind of image that is fetched"), "{wrong}");
    }
    assert_eq!(request("/odd://name", &[]).image().unwrap().path, Path::new("/odd://name"));
}

#[test]
fn each_option_says_what_it_wants() {
    assert!(wrong(Id::Workdir, "sub").contains("sub: a path inside the container must be absolute"));
    assert!(wrong(Id::Home, "maybe").contains("--container-home: yes or no is wanted, not \"maybe\""));
    assert!(wrong(Id::Scope, "step").contains("step: not a scope: script, steps or all"));
    for size in ["g", "-1", "1x", "1", "4095", "99999999t", "1.5g"] {
        let said = if size == "1" { "1".into() } else { wrong(Id::Writable, size) };
        assert!(size == "1" || said.contains("not a size"), "{size}: {said}");
    }
    for id in [Id::Bind, Id::Digest, Id::Workdir, Id::Env, Id::Writable, Id::Overlay, Id::Scope] {
        let flag = Spec::of(id).unwrap().flag(Naming::Container);
        assert!(wrong(id, "").contains(&format!("{flag}: its value is missing")), "{flag}");
    }
    for item in ["A-B=1", "1A", "A,=", "=x", "=x*", "A B"] {
        assert!(wrong(Id::Env, item).contains("not a variable: NAME, NAME* or NAME=VALUE"), "{item}");
    }
    for item in ["CORACLE_IMAGE=/x", "SLURM_CORACLE_REQUEST=", "PMIX_RANK=1", "SLURMD_X=1"] {
        assert!(wrong(Id::Env, item).contains("Slurm and Coracle set this variable"), "{item}");
    }
    let both = with("/i", &[(Id::Writable, "1g"), (Id::Overlay, "/o")]).unwrap_err();
    assert_eq!(both, Error::Option(options::Error::WritableTwice));
}

#[test]
fn each_option_is_read() {
    let settings = settings(&[
        (Id::Env, r",A,B*,,C=x\,y,D=\\,E=,"),
        (Id::Writable, "512m"),
        (Id::Workdir, "/w//x"),
        (Id::Scope, "script"),
        (Id::CleanEnv, "yes"),
        (Id::Entrypoint, "no"),
    ]);
    let text: Vec<_> = settings.env.iter().map(|variable| variable.to_text().into_string().unwrap()).collect();
    assert_eq!(text, ["A", "B*", "C=x,y", r"D=\", "E="]);
    assert_eq!(settings.writable, Some(Writable::Memory(Some(Size(512 << 20)))));
    assert_eq!(settings.workdir, Some("/w/x".into()));
    assert_eq!(
        (settings.scope, settings.clean_env, settings.entrypoint),
        (Some(Scope::Script), Some(true), Some(false))
    );
}

#[test]
fn a_step_can_be_joined_and_nothing_of_it_changed() {
    let step = |text: &str| match with(text, &[]) {
        Ok(Choice::Container(request)) => request.to_env(),
        other => panic!("{other:?}"),
    };
    assert_eq!(step("step"), "2:step=any");
    assert_eq!(step("step:7"), "2:step=7");
    assert_eq!(step("step:batch"), "2:step=batch");
    assert_eq!(step("./step"), "2:image=/home/alice/step;as=./step");
    assert_eq!(step("steps.sif"), "2:image=/home/alice/steps.sif;as=steps.sif");
    for wrong in ["step:", "step:x", "step:any", "step:extern", "step:-1"] {
        assert!(refusal(wrong, &[], None).contains("not a step"), "{wrong}");
    }
    let digest = format!("sha256:{HEX}");
    for (id, value) in [
        (Id::Bind, "/a"),
        (Id::Digest, &digest),
        (Id::Home, "no"),
        (Id::Writable, "yes"),
        (Id::Overlay, "/o"),
        (Id::Mpi, "none"),
        (Id::Gpu, "none"),
    ] {
        assert_eq!(with("step:0", &[(id, value)]), Err(Error::MadeAlready), "{value}");
    }
    assert!(refusal("step:0", &["/a"], None).contains("were decided when that step started"));
    assert!(with("step", &[(Id::Env, "A=1"), (Id::Workdir, "/tmp")]).is_ok());
}

#[test]
fn a_request_is_shown_as_it_was_typed() {
    for typed in ["a/../b.sif", "store:a.sif", "step", "step:7", "step:batch"] {
        let Ok(Choice::Container(request)) = with(typed, &[]) else { panic!("{typed}") };
        assert_eq!(request.what.to_string(), typed);
    }
}

#[test]
fn scripts_have_names_for_ids() {
    for (name, id) in [("batch", 0xffff_fffb), ("interactive", 0xffff_fffa)] {
        assert!(is_script(id), "{name}");
        assert_eq!((step_name(id).as_str(), step_id(name)), (name, Some(id)));
    }
    for id in [0, 7, MAX_STEP, 0xffff_fffc, 0xffff_fffd] {
        assert!(!is_script(id), "{id}");
        assert_eq!(step_name(id), id.to_string());
    }
    assert_eq!(step_id("4294967280"), Some(MAX_STEP));
    assert_eq!(step_id("4294967281"), None);
}

#[test]
fn a_choice_passes_through_the_environment() {
    for image in ["none", "/i.sif", "step", "step:7", "step:batch"] {
        let choice = with(image, &[]).unwrap();
        assert_eq!(Choice::from_env(OsStr::new(&choice.to_env())), Ok(choice), "{image}");
    }
    assert_eq!(with("none", &[]).unwrap().to_env(), "none");
}

#[test]
fn a_request_has_at_most_32_kibibytes() {
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    // The path is in it twice.
    let most = (MAX_LEN - "2:image=;as=".len()) / 2;
    let text = request(&path(most), &[]).to_env();
    assert_eq!(text.len(), MAX_LEN);
    assert!(Request::from_env(OsStr::new(&text)).is_ok());
    assert_eq!(with(&path(most + 1), &[]), Err(Error::TooLong(MAX_LEN + 2)));
    let beyond = format!("{text};");
    assert_eq!(Request::from_env(OsStr::new(&beyond)), Err(Error::Garbled("longer than 32768 bytes")));
}

#[test]
fn what_is_open_is_taken_from_elsewhere_and_variables_add_up() {
    let mine = settings(&[(Id::Home, "no"), (Id::Env, "A=mine"), (Id::Overlay, "/o")]);
    let sites = settings(&[(Id::Home, "yes"), (Id::Env, "A=site,B"), (Id::Writable, "1g"), (Id::Scope, "steps")]);
    let both = mine.or(&sites);
    assert_eq!((both.home, both.scope, both.writable), (Some(false), Some(Scope::Steps), None));
    let text: Vec<_> = both.env.iter().map(|variable| variable.to_text().into_string().unwrap()).collect();
    assert_eq!(text, ["A=site", "B", "A=mine"]);
}

#[test]
fn the_sites_variables_are_none_of_the_users() {
    let sites = settings(&[(Id::Home, "no"), (Id::Env, "A=site")]);
    let found = settings(&[(Id::Env, "B=mine")]).or_site(&sites);
    assert_eq!((found.home, found.env), (Some(false), vec![Variable::Set("B".into(), "mine".into())]));
    assert!(settings(&[]).or_site(&sites).env.is_empty());
}

#[test]
fn a_summary_has_no_value_of_a_variable() {
    let mine =
        settings(&[(Id::Env, "TOKEN=secret,KEPT,P_*"), (Id::Home, "no"), (Id::Writable, "4k"), (Id::Bind, "/a")]);
    let sites = settings(&[(Id::Env, "SITES=x")]).env;
    let wanted = [("home", "no"), ("env", "SITES=,TOKEN=,KEPT,P_*"), ("writable", "4096")];
    assert_eq!(mine.summary(&sites), wanted.map(|(key, value)| (key, value.to_owned())));
    assert_eq!(Settings::default().summary(&[]), []);
}

#[test]
fn a_backslash_makes_a_colon_or_a_comma_part_of_a_name() {
    let bind = |text: &str| {
        let binds = request("/i", &[text]).settings.binds.list;
        let shown: Vec<String> = binds.iter().map(|bind| format!("{:?} {:?}", bind.source, bind.target)).collect();
        shown.join(" ")
    };
    assert_eq!(bind(r"/a\:b:/c\,d:ro"), r#"Node("/a:b") "/c,d""#);
    assert_eq!(bind(r"/a\:b"), r#"Node("/a:b") "/a:b""#);
    assert_eq!(bind(r"/a\,b,/c"), r#"Node("/a,b") "/a,b" Node("/c") "/c""#);
    assert_eq!(bind(r"/a\\:/b,/c\\,/d"), r#"Node("/a\\") "/b" Node("/c\\") "/c\\" Node("/d") "/d""#);
    assert_eq!(bind(r"/a\b:/c\ d"), r#"Node("/a\\b") "/c\\ d""#);
    assert_eq!(bind(r"tmpfs:/a\:b:4k"), r#"Memory(Some(Size(4096))) "/a:b""#);
    let hint = |text: &str| Refusal::from(parse("/i", &[text], None).unwrap_err()).hint_line();
    let wanted = "coracle: hint: a colon or a comma in a name has a backslash in front";
    assert_eq!((hint("/a:b:/c:ro").as_deref(), hint("/a:/b:rx")), (Some(wanted), None));
}

#[test]
fn empty_items_say_nothing_and_the_same_bind_is_meant_once() {
    for binds in [&["/a,,/b:/c,"][..], &[",/a", "/b:/c"], &["/a,/b:/c,/a:/a", "/b:/c:rw,/a/"]] {
        assert_eq!(request("/i", binds).to_env(), "2:image=/i;as=/i;bind=/a:/a:rw;bind=/b:/c:rw", "{binds:?}");
    }
    assert_eq!(request("/i", &[",,"]).to_env(), "2:image=/i;as=/i");
    for twice in ["/a:/c,/b:/c", "/a:/c,/a:/c:ro", "/a:/c,tmpfs:/c", "tmpfs:/c:4k,tmpfs:/c:8k"] {
        assert_eq!(refusal("/i", &[twice], None), "coracle: /c: two binds for the same place in the container [bind]");
    }
}

#[test]
fn a_size_beyond_the_sites_is_brought_down_and_told() {
    let limited = |options: &[(Id, &str)]| {
        let mut settings = settings(options);
        let notes = settings.limit(Size(1 << 30));
        (notes.join("|"), fields(&settings))
    };
    let note = |what: &str| format!("{what}: more than the site gives, so it is 1g (writable_limit)");
    let given = |fields: &str| (String::new(), fields.to_owned());
    assert_eq!(limited(&[(Id::Writable, "1g")]), given(";writable=1073741824"));
    assert_eq!(limited(&[(Id::Writable, "yes")]), given(";writable=yes"));
    assert_eq!(limited(&[(Id::Bind, "tmpfs:/a,tmpfs:/b:1024m")]), given(";bind=tmpfs:/a;bind=tmpfs:/b:1073741824"));
    let cut = limited(&[(Id::Writable, "100000g")]);
    assert_eq!(cut, (note("--container-writable=100000g"), ";writable=1073741824".into()));
    let cut = limited(&[(Id::Bind, "tmpfs:/a:1025m,/b,tmpfs:/c:2t")]);
    assert_eq!(cut.0, [note("tmpfs:/a:1025m"), note("tmpfs:/c:2t")].join("|"));
    assert_eq!(cut.1, ";bind=tmpfs:/a:1073741824;bind=/b:/b:rw;bind=tmpfs:/c:1073741824");
    let shown = |bytes| Size(bytes).to_string();
    assert_eq!([shown(4096), shown(4097), shown(3 << 20)], ["4k", "4097", "3m"]);
}

#[test]
fn a_name_with_a_tag_may_be_one_of_a_registry() {
    let of_registry = |typed: &str| request(typed, &[]).image().unwrap().of_registry();
    for typed in ["ubuntu:22.04", "biocontainers/samtools:1.9", "ghcr.io/a/b:latest", "localhost:5000/a:1"] {
        assert_eq!(of_registry(typed), Some(format!("docker://{typed}")));
    }
    for typed in ["ubuntu.sif", "/x/ubuntu:22.04", "./ubuntu:22.04", "../a:b", "a:", "store:a", "a b:1"] {
        assert_eq!(of_registry(typed).filter(|_| typed != "store:a"), None, "{typed}");
    }
}

#[test]
fn an_inherited_image_takes_binds_in_addition() {
    let amended = |options: &[(Id, &str)]| {
        let job = request("/i", &["/old,/job:/data"]);
        let form = job.amend(&raw(options), Path::new("/")).unwrap().to_env();
        form.strip_prefix("2:image=/i;as=/i").unwrap().to_owned()
    };
    let (old, job) = (";bind=/old:/old:rw", ";bind=/job:/data:rw");
    assert_eq!(amended(&[(Id::Home, "no")]), format!("{old}{job};home=no"));
    assert_eq!(amended(&[(Id::Bind, "/new")]), format!("{old}{job};bind=/new:/new:rw"));
    assert_eq!(amended(&[(Id::Bind, "/old")]), format!("{job}{old}"));
    assert_eq!(amended(&[(Id::Bind, "/mine:/data:ro")]), format!("{old};bind=/mine:/data:ro"));
    assert_eq!(amended(&[(Id::Bind, "none")]), "");
    for afresh in ["none,/new", "/x:/new,none,/new"] {
        assert_eq!(amended(&[(Id::Bind, afresh)]), ";bind=/new:/new:rw", "{afresh}");
    }
    assert_eq!(amended(&[(Id::Bind, "/x"), (Id::Bind, "none"), (Id::Bind, "/new")]), ";bind=/new:/new:rw");
    assert_eq!(amended(&[(Id::Bind, "./none:/new")]), format!("{old}{job};bind=/./none:/new:rw"));
}

#[test]
fn binds_of_job_and_step_together_have_the_same_limit() {
    let binds = |count: usize, name: &str| (0..count).map(|n| format!("/{name}{n}")).collect::<Vec<_>>().join(",");
    let job = || request("/i", &[&binds(100, "a")]);
    let amended = |count| job().amend(&raw(&[(Id::Bind, &binds(count, "b"))]), Path::new("/"));
    assert_eq!(amended(28).unwrap().settings.binds.list.len(), 128);
    let refusal = Refusal::from(amended(29).unwrap_err());
    assert!(refusal.to_string().contains("129 binds, at most 128"), "{refusal}");
}

#[test]
fn the_environment_form_is_stable() {
    let text = request("/i m.sif", &["/a:/b:ro"]).to_env();
    assert_eq!(text, "2:image=/i%20m.sif;as=/i%20m.sif;bind=/a:/b:ro");
}

#[test]
fn a_forged_environment_form_is_refused() {
    for (forged, why) in [
        ("", "no form"),
        ("x:image=/a", "no form"),
        ("99999:image=/a", "no form"),
        ("2:", "a field without a value"),
        ("2:image=a", "an image path that is not absolute"),
        ("2:image=/a;image=/b", "an unknown or repeated field"),
        ("2:image=/a;as=b;as=c", "an unknown or repeated field"),
        ("2:step=0;step=1", "an unknown or repeated field"),
        ("2:image=/a;commands=no", "an unknown or repeated field"),
        ("2:image=/a;inherited=no", "an unknown or repeated field"),
        ("2:image=/a%00b", "a NUL byte"),
        ("2:image=/a%0", "a cut escape"),
        ("2:image=/a%zz", "a wrong escape"),
        ("2:image=/a;root=yes", "an unknown or repeated field"),
        ("2:image=/a;home=yes;home=no", "an unknown or repeated field"),
        ("2:image=/a;step=0", "an image and a step"),
        ("2:step=extern", "a step"),
        ("2:step=4294967292", "a step"),
        ("2:image=/a;tmpfs=/b:", "an unknown or repeated field"),
        ("2:image=/a;env=A=1,B", "a character that is not escaped"),
    ] {
        let line = Refusal::from(Request::from_env(OsStr::new(forged)).unwrap_err()).line();
        assert_eq!(line, format!("coracle: SLURM_CORACLE_REQUEST: cannot be read: {why} [usage]"));
    }
    let refusal = Refusal::from(Request::from_env(OsStr::new("1:image=/a;colour=blue")).unwrap_err());
    assert_eq!(refusal.line(), "coracle: SLURM_CORACLE_REQUEST: of form 1, and this node reads form 2 [usage]");
    assert!(refusal.hint.is_some_and(|hint| hint.contains("another version of Coracle")));
    assert_eq!(
        Request::from_env(OsStr::new("2:image=/a;bind=/b:/proc/x:rw")),
        Err(Error::Option(options::Error::ReservedTarget("/proc/x".into())))
    );
    assert_eq!(Request::from_env(OsStr::from_bytes(b"2:image=/\xff")), Err(Error::Garbled("not ASCII")));
}

fn any_path() -> impl Strategy<Value = OsString> {
    prop::collection::vec(1u8.., 0..40).prop_map(|bytes| OsString::from_vec([b"/".as_slice(), &bytes].concat()))
}

#[test]
fn every_default_is_a_value_of_its_option() {
    for spec in crate::options::OPTIONS {
        if let Some(value) = spec.default {
            assert_ne!(settings(&[(spec.id, value)]), Settings::default(), "{}", spec.key);
        }
    }
}

#[test]
fn a_bare_word_is_a_file_here_or_else_a_stored_image() {
    let image = |typed: &str| {
        let Ok(Choice::Container(request)) = Request::parse(&RawOptions::default(), OsStr::new(typed), Path::new("/d"))
        else {
            panic!("{typed}")
        };
        let image = Request::from_env(OsStr::new(&request.to_env())).unwrap();
        let image = image.image().unwrap();
        (image.file().map(Path::to_owned), image.stored().map(|name| name.to_string()))
    };
    assert_eq!(image("a.sif"), (Some("/d/a.sif".into()), Some("a.sif".into())));
    assert_eq!(image("./a.sif"), (Some("/d/a.sif".into()), None));
    assert_eq!(image("/x/a.sif"), (Some("/x/a.sif".into()), None));
    assert_eq!(image("-x"), (Some("/d/-x".into()), None));
    assert_eq!(image("store:a.sif"), (None, Some("a.sif".into())));
    for wrong in ["store:", "store:../x", "store:/etc/x", "store:-x"] {
        let line = refusal(wrong, &[], None);
        assert!(line.contains("not a name of a stored image"), "{line}");
    }
}

proptest! {
    #[test]
    fn every_request_survives_the_journey(image in any_path(), source in any_path(), name in "[a-z]{1,9}") {
        let bind = Bind::checked(BindSource::Node(source.clone().into()), format!("/{name}").into(), Access::ReadOnly);
        let memory = Bind::checked(BindSource::Memory(Some(Size(8192))), "/m/m".into(), Access::ReadWrite);
        let settings = Settings {
            binds: Binds { afresh: false, list: vec![bind.unwrap(), memory.unwrap()] },
            digest: Some(Digest([3; 32])),
            workdir: Some(format!("/w/{name}").into()),
            home: Some(false),
            env: vec![Variable::Keep("A*".into()), Variable::Set("B".into(), source.clone())],
            clean_env: Some(true),
            writable: None,
            overlay: Some(source.into()),
            entrypoint: Some(true),
            scope: Some(Scope::Steps),
            gpu: Some(false),
            mpi: Some(Mpi::parse(OsStr::new("openmpi-5")).unwrap()),
        };
        let what = What::Image(ImageRef { path: image.clone().into(), typed: image });
        let sent = Request { what, commands: true, inherited: true, settings };
        let text = sent.to_env();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(Request::from_env(OsStr::new(&text)), Ok(sent));
    }

    #[test]
    fn every_name_can_be_typed(source in any_path(), target in "/[a-z:,\\\\ .]{1,9}[a-z]") {
        let escaped = |text: &OsStr| {
            let escape = |byte: &u8| if b"\\:,".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] };
            OsString::from_vec(text.as_bytes().iter().flat_map(escape).collect())
        };
        let mut text = escaped(&source);
        text.push(":");
        text.push(escaped(OsStr::new(&target)));
        let found = Binds::parse([text.as_os_str(), OsStr::new("/last")], Path::new("/"));
        let found = found.unwrap().list;
        let bind = Bind::checked(BindSource::Node(source.into()), target.into(), Access::ReadWrite).unwrap();
        prop_assert_eq!((found.len(), &found[0]), (2, &bind));
    }

    #[test]
    fn no_environment_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::from_env(&OsString::from_vec(bytes));
    }

    #[test]
    fn no_option_makes_it_panic(text in r"[/a.:,@ \\]{0,40}") {
        for id in [Id::Bind, Id::Env, Id::Workdir, Id::Writable, Id::Overlay, Id::Mpi] {
            if let Ok(Choice::Container(request)) = with(&text, &[(id, &text)]) {
                prop_assert!(request.settings.binds.list.iter().all(|bind| inside(&bind.target).is_ok()));
            }
        }
        let raw = raw(&[(Id::Bind, &text)]);
        if let Ok(Choice::Container(request)) = Request::parse(&raw, OsStr::new(&text), Path::new("/d")) {
            prop_assert!(request.settings.binds.list.iter().all(|bind| inside(&bind.target).is_ok()));
        }
    }
}
