use super::*;
use proptest::prelude::*;

fn parse(image: &str, binds: &[&str], digest: Option<&str>) -> Result<Choice, Error> {
    let raw = RawOptions { binds: binds.iter().map(OsString::from).collect(), digest: digest.map(OsString::from) };
    Request::parse(&raw, OsStr::new(image), Path::new("/home/alice"))
}

fn request(image: &str, binds: &[&str]) -> Request {
    match parse(image, binds, None) {
        Ok(Choice::Container(request)) => request,
        other => panic!("{image} {binds:?}: {other:?}"),
    }
}

fn refusal(image: &str, binds: &[&str], digest: Option<&str>) -> String {
    Refusal::from(parse(image, binds, digest).unwrap_err()).line()
}

const HEX: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

#[test]
fn a_relative_image_is_taken_from_the_working_directory() {
    assert_eq!(request("img.sif", &[]).image.path, Path::new("/home/alice/img.sif"));
    assert_eq!(request("a/b.sif", &[]).image.path, Path::new("/home/alice/a/b.sif"));
    assert_eq!(request("/x/b.sif", &[]).image.path, Path::new("/x/b.sif"));
    assert_eq!(request("/x/b.sif", &[]).image.stem(), "b");
    assert_eq!(parse("none", &[], None), Ok(Choice::Host));
    assert_eq!(request("./none", &[]).image.path, Path::new("/home/alice/none"));
}

#[test]
fn a_digest_may_stand_behind_the_image_or_alone_but_not_twice_differently() {
    let pinned = format!("/i.sif@sha256:{HEX}");
    let Ok(Choice::Container(one)) = parse(&pinned, &[], None) else { panic!() };
    assert_eq!(one.image.path, Path::new("/i.sif"));
    assert_eq!(one.digest.unwrap().to_string(), format!("sha256:{}", HEX.to_lowercase()));
    assert!(parse(&pinned, &[], Some(&format!("sha256:{HEX}"))).is_ok());
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(refusal(&pinned, &[], Some(&other)).ends_with("the one of --container-digest differ [usage]"));
    for wrong in ["", "sha256:", "md5:00", "sha256:zz", &format!("sha256:{HEX}00"), &format!("sha256:{}é", &HEX[2..])]
    {
        assert!(refusal("/i", &[], Some(wrong)).contains("not a digest"), "{wrong}");
    }
}

#[test]
fn binds_have_one_to_three_parts() {
    let binds = request("/i", &["/a,/b:/c", "d:/e:ro"]).binds;
    let shown: Vec<String> =
        binds.iter().map(|bind| format!("{:?} {:?} {}", bind.source, bind.target, bind.access.word())).collect();
    assert_eq!(shown, [r#""/a" "/a" rw"#, r#""/b" "/c" rw"#, r#""/home/alice/d" "/e" ro"#]);
}

#[test]
fn wrong_binds_are_named() {
    for wrong in ["", ":", "/a:", ":/b", "/a:/b:", "/a:/b:rx", "/a:/b:ro:rw", "/a,,/b", "/a,"] {
        assert!(refusal("/i", &[wrong], None).contains("not a bind: SRC[:DST[:ro|rw]] is wanted"), "{wrong:?}");
    }
    for wrong in ["/a:b", "/a:/b/../c", "/a:/b/./c", "../x", "/a:."] {
        assert!(refusal("/i", &[wrong], None).contains("must be absolute and have no . or .."), "{wrong:?}");
    }
    for wrong in ["/a:/", "/a:///", "/a:/proc", "/a:/proc/self", "/dev", "/a:/sys//kernel", "/dev/shm"] {
        assert!(refusal("/i", &[wrong], None).contains("nothing may be bound over"), "{wrong:?}");
    }
    let many = vec!["/a"; MAX_BINDS + 1];
    assert!(refusal("/i", &many, None).contains("129 binds, at most 128"));
    let long = format!("/{}", "a".repeat(MAX_LEN));
    assert!(refusal(&long, &[], None).contains("at most 32768 are possible"));
}

#[test]
fn what_no_node_resolves_is_refused() {
    assert!(refusal("", &[], None).contains("the name of an image is missing"));
    for wrong in ["docker://alpine", "oras://x/y", "store:x"] {
        assert!(refusal(wrong, &[], None).contains("not fetched when a job starts"), "{wrong}");
    }
    assert_eq!(request("/odd://name", &[]).image.path, Path::new("/odd://name"));
}

#[test]
fn an_inherited_image_takes_new_binds() {
    let raw = RawOptions { binds: vec!["/new".into()], ..RawOptions::default() };
    let amended = request("/i", &["/old"]).amend(&raw, Path::new("/")).unwrap();
    assert_eq!((amended.image.path.as_path(), amended.binds[0].source.as_path()), (Path::new("/i"), Path::new("/new")));
}

#[test]
fn the_environment_form_is_stable() {
    let text = request("/i m.sif", &["/a:/b:ro"]).to_env();
    assert_eq!(text, "1:image=/i%20m.sif;as=/i%20m.sif;bind=/a:/b:ro");
}

#[test]
fn a_forged_environment_form_is_refused() {
    for (forged, why) in [
        ("", "not of form 1"),
        ("2:image=/a", "not of form 1"),
        ("1:", "a field without a value"),
        ("1:image=a", "an image path that is not absolute"),
        ("1:image=/a;image=/b", "an unknown or repeated field"),
        ("1:image=/a%00b", "a NUL byte"),
        ("1:image=/a%0", "a cut escape"),
        ("1:image=/a%zz", "a wrong escape"),
        ("1:image=/a;bind=/b:/c", "a bind without three parts"),
        ("1:image=/a;bind=/b:/c:xx", "a bind's access"),
        ("1:image=/a;root=yes", "an unknown or repeated field"),
    ] {
        let line = Refusal::from(Request::from_env(OsStr::new(forged)).unwrap_err()).line();
        assert_eq!(line, format!("coracle: SLURM_CORACLE_REQUEST: cannot be read: {why} [usage]"));
    }
    assert_eq!(
        Request::from_env(OsStr::new("1:image=/a;bind=/b:/proc/x:rw")),
        Err(Error::ReservedTarget("/proc/x".into()))
    );
    assert_eq!(Request::from_env(OsStr::from_bytes(b"1:image=/\xff")), Err(Error::Garbled("not ASCII")));
}

fn any_path() -> impl Strategy<Value = OsString> {
    prop::collection::vec(1u8.., 0..40).prop_map(|bytes| OsString::from_vec([b"/".as_slice(), &bytes].concat()))
}

proptest! {
    #[test]
    fn every_request_survives_the_journey(image in any_path(), source in any_path(), name in "[a-z]{1,9}") {
        let bind = Bind::checked(source.into(), format!("/{name}").into(), Access::ReadOnly).unwrap();
        let sent = Request { image: ImageRef { path: image.clone().into(), typed: image }, binds: vec![bind], digest: None };
        let text = sent.to_env();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(Request::from_env(OsStr::new(&text)), Ok(sent));
    }

    #[test]
    fn no_environment_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::from_env(&OsString::from_vec(bytes));
    }

    #[test]
    fn no_option_makes_it_panic(text in "[/a.:,@ ]{0,40}") {
        let raw = RawOptions { binds: vec![text.clone().into()], digest: None };
        if let Ok(Choice::Container(request)) = Request::parse(&raw, OsStr::new(&text), Path::new("/d")) {
            prop_assert!(request.binds.iter().all(|bind| inside(&bind.target).is_ok()));
        }
    }
}
