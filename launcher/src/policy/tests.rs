//! Tests of the effective policy for users and jobs, and of its decisions.
#![forbid(unsafe_code)]

use std::path::Path;

use super::*;
use crate::config::Config;
use coracle::request::escape::escape;
use coracle::request::{Digest, Settings};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

fn config(text: &str) -> Config {
    Config::parse(Path::new("c.yaml"), &format!("version: 1\n{text}")).unwrap()
}

/// Alice, in group proj, with a job in partition gpu for account physics.
fn alice() -> Facts {
    let job = Job { partition: Some("gpu".into()), account: Some("physics".into()), qos: Some("high".into()) };
    let groups = vec![(2001, Some("alice".into())), (3001, Some("proj".into()))];
    Facts { uid: 2001, user: Some("alice".into()), groups, job, claims: Job::default() }
}

fn unknown_job() -> Facts {
    Facts { job: Job::default(), ..alice() }
}

fn rules(text: &str) -> Rules {
    effective(&config(text), &alice())
}

fn file(owner: u32, mode: u32, below: Option<usize>) -> Provenance {
    let wanted_owner = below.map(|_| 0);
    let form = Form::File;
    Provenance { owner, mode, below, wanted_owner, form, stored: false, length: 5000, digest: None, signers: None }
}

fn verdict(text: &str, image: &Provenance) -> String {
    match judge(&rules(text), image) {
        Ok(grant) => grant.rule,
        Err(denied) => denied.refuse("i").cause,
    }
}

#[test]
fn the_most_specific_scope_that_says_a_key_decides_for_that_key() {
    let scopes = [
        ("user_images: deny\n", "user_images"),
        ("partitions: {gpu: {user_images: deny}, cpu: {user_images: kernel}}\n", "partitions.gpu.user_images"),
        ("qos: {low: {user_images: kernel}, high: {user_images: deny}}\n", "qos.high.user_images"),
        ("accounts: {physics: {user_images: deny}}\n", "accounts.physics.user_images"),
        ("groups: {none: {user_images: kernel}, proj: {user_images: deny}}\n", "groups.proj.user_images"),
        ("users: {bob: {user_images: kernel}, alice: {user_images: deny}}\n", "users.alice.user_images"),
    ];
    let mut text = String::new();
    for (more, rule) in scopes {
        // Each wider scope sets the opposite, so the result shows which scope decides.
        text = text.replace("deny", "kernel") + more;
        let Ruling::Said(said) = rules(&text).user_images else { panic!("{text}") };
        assert_eq!((said.rule.as_str(), said.value.to_string().as_str()), (rule, "deny"), "{text}");
    }
    // A key that the user's rule does not set is resolved by the next scope.
    let rules = rules("users: {alice: {user_images: fuse}}\ngroups: {3001: {directories: allow}}\ndirectories: deny\n");
    assert_eq!(rules.directories.said().unwrap().unwrap().rule, "groups.3001.directories");
    assert_eq!(rules.user_images.said().unwrap().unwrap().rule, "users.alice.user_images");
    assert!(rules.digests.is_silent() && rules.default_image.is_silent());
}

#[test]
fn of_several_groups_the_first_in_the_file_decides() {
    for (text, wanted) in [
        ("groups: {proj: {user_images: fuse}, alice: {user_images: deny}}\n", "groups.proj.user_images"),
        ("groups: {alice: {user_images: deny}, proj: {user_images: fuse}}\n", "groups.alice.user_images"),
        (
            "groups: {zeta: {user_images: deny}, proj: {directories: allow}, 2001: {user_images: deny}}\n",
            "groups.2001.user_images",
        ),
        ("users: {2001: {user_images: deny}, alice: {user_images: fuse}}\n", "users.2001.user_images"),
    ] {
        assert_eq!(rules(text).user_images.said().unwrap().unwrap().rule, wanted, "{text}");
    }
}

#[test]
fn what_is_not_known_is_not_decided_and_what_needs_no_facts_is() {
    let missing = |text: &str, facts: &Facts| {
        let rules = effective(&config(text), facts);
        rules
            .signers
            .said()
            .map(|said| said.map(|said| said.rule.clone()))
            .map_err(|missing| missing.refuse("i").to_string())
    };
    let partition = format!("partitions: {{gpu: {{signers: [{KEY}]}}}}\n");
    let text = missing(&partition, &unknown_job()).unwrap_err();
    assert!(
        text.starts_with("coracle: i: the rule partitions.gpu.signers of the site needs the job's partition"),
        "{text}"
    );
    assert!(text.contains("job_facts=prolog"), "{text}");
    let qos = missing("qos: {high: {signers: any}}\n", &unknown_job()).unwrap_err();
    assert!(qos.contains("the rule qos.high.signers of the site needs the job's QOS"), "{qos}");
    // A more specific scope decides, or no rule of that scope sets the key.
    let lifted = format!("{partition}users: {{alice: {{signers: any}}}}\n");
    assert_eq!(missing(&lifted, &unknown_job()), Ok(Some("users.alice.signers".into())));
    assert_eq!(missing("partitions: {gpu: {directories: allow}}\n", &unknown_job()), Ok(None));
    assert_eq!(missing(&partition, &Facts { job: Job::none(), ..alice() }), Ok(None));
    // Claims of the job change nothing.
    let spoofed = Facts { claims: Job { partition: Some("cpu".into()), ..Job::none() }, ..unknown_job() };
    assert!(missing(&partition, &spoofed).is_err());
    let spoofed = Facts { claims: spoofed.claims, ..alice() };
    assert_eq!(missing(&partition, &spoofed), Ok(Some("partitions.gpu.signers".into())));
    // Rules with names of users or groups need these names to be known; ids are always known.
    let nameless = Facts { user: None, groups: vec![(2001, Some("alice".into())), (3001, None)], ..alice() };
    let text = missing("users: {bob: {signers: any}}\n", &nameless).unwrap_err();
    assert!(text.contains("the rule users.bob.signers of the site needs the user's name"), "{text}");
    let text = missing("groups: {zeta: {signers: any}}\n", &nameless).unwrap_err();
    assert!(text.contains("the name of group 3001"), "{text}");
    assert_eq!(missing("groups: {7: {signers: any}}\nusers: {7: {signers: any}}\n", &nameless), Ok(None));
}

#[test]
fn a_default_image_is_the_partitions_even_where_only_the_job_says_which_one() {
    let text = "default_image: /any.sif\npartitions: {gpu: {default_image: /gpu.sif}, cpu: {default_image: none}}\n";
    let claims = |partition: &str| Job { partition: Some(partition.into()), ..Job::default() };
    for (job, claims, wanted) in [
        (alice().job, claims("cpu"), "/gpu.sif"),
        (Job::default(), claims("gpu"), "/gpu.sif"),
        (Job::default(), claims("cpu"), "none"),
        (Job::default(), Job::default(), "/any.sif"),
    ] {
        let rules = effective(&config(text), &Facts { job, claims, ..alice() });
        assert_eq!(rules.default_image.to_string(), wanted);
        assert_eq!(matches!(bare(&rules), Ok(Bare::Default(_))), wanted != "none");
    }
}

#[test]
fn where_a_container_is_required_nothing_runs_outside_of_one() {
    let refusal =
        |text: &str, facts: &Facts| bare(&effective(&config(text), facts)).map_err(|refusal| refusal.to_string());
    let required = "partitions: {gpu: {required: yes}}\n";
    let text = refusal(required, &alice()).unwrap_err();
    assert!(text.contains("a step without --container: the site runs nothing outside of containers"), "{text}");
    assert!(text.contains("(partitions.gpu.required: yes) [policy]"), "{text}");
    assert!(refusal(required, &unknown_job()).unwrap_err().contains("needs the job's partition"));
    let lifted = format!("{required}groups: {{proj: {{required: no}}}}\n");
    assert_eq!(refusal(&lifted, &alice()), Ok(Bare::Outside));
    assert_eq!(refusal("", &alice()), Ok(Bare::Outside));
    // With a default image there is nothing to refuse, unless a step asks to run outside.
    let both = rules(&format!("{required}default_image: /a.sif@{A}\n"));
    assert!(matches!(bare(&both), Ok(Bare::Default(request)) if request.settings.digest.is_some()));
    assert!(outside(&both, "--container=none").unwrap_err().line().starts_with("coracle: --container=none: "));
}

#[test]
fn only_the_options_of_the_list_may_be_used() {
    let settings = |text: &str| {
        let request = coracle::request::Request::from_env(format!("2:image=/a;{text}").as_ref()).unwrap();
        request.settings
    };
    let refused =
        |text: &str, asked: &Settings| options(&rules(text), &asked.given()).map_err(|refusal| refusal.line());
    let asked = settings("bind=/a:/b:rw;env=A");
    assert_eq!(refused("user_options: [bind, env]\n", &asked), Ok(()));
    assert_eq!(refused("user_options: any\n", &asked), Ok(()));
    let line = refused("groups: {proj: {user_options: [bind]}}\n", &asked).unwrap_err();
    let wanted =
        "coracle: --container-env: the site does not let you use this option (groups.proj.user_options) [policy]";
    assert_eq!(line, wanted);
    assert_eq!(refused("user_options: []\n", &Settings::default()), Ok(()));
    // Each option is checked.
    for (key, field) in [
        ("bind", "bind=tmpfs:/a"),
        ("digest", &format!("digest={}", escape(A.as_ref()))),
        ("workdir", "workdir=/a"),
        ("home", "home=yes"),
        ("env", "env=A"),
        ("clean-env", "clean-env=no"),
        ("writable", "writable=yes"),
        ("overlay", "overlay=/a"),
        ("entrypoint", "entrypoint=no"),
        ("scope", "scope=all"),
    ] {
        let line = refused("user_options: []\n", &settings(field)).unwrap_err();
        assert!(line.starts_with(&format!("coracle: --container-{key}: ")), "{line}");
        assert_eq!(refused(&format!("user_options: [{key}]\n"), &settings(field)), Ok(()), "{key}");
    }
}

#[test]
fn lists_and_limits_hold_for_every_image() {
    let digest = |text: &str| Some(Digest::parse(text.as_ref()).unwrap());
    let signed = |by: &[&str]| Some(by.iter().map(|key| (*key).to_owned()).collect());
    let sites = file(0, 0o100_644, Some(0));
    let known = Provenance { digest: digest(A), signers: signed(&["F00", KEY]), ..sites.clone() };
    for (text, image, wanted) in [
        (format!("digests: [{A}]\n"), &known, "image_paths[0],digests"),
        (format!("digests: [{B}]\n"), &known, "is not in the site's list (digests)"),
        (format!("digests: [{A}]\n"), &sites, "it has no digest, and the site has a list of them (digests)"),
        ("digests: []\n".into(), &known, "is not in the site's list (digests)"),
        (format!("digests: [{B}]\nusers: {{alice: {{digests: any}}}}\n"), &known, "image_paths[0]"),
        (format!("signers: [{KEY}]\n"), &known, "image_paths[0],signers"),
        (format!("signers: [{KEY}]\n"), &sites, "whether the site's signers have signed it is not known (signers)"),
        ("signers: ['SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU']\n".into(), &known, "signed by F00 and 0123"),
        (
            format!("signers: [{KEY}]\n"),
            &Provenance { signers: signed(&[]), ..sites.clone() },
            "it has no valid signature",
        ),
        (format!("digests: [{A}]\n"), &Provenance { below: None, ..known.clone() }, "you can change it"),
        (format!("signers: [{KEY}]\n"), &Provenance { mode: 0o100_666, ..known.clone() }, "you can change it"),
        (format!("image_paths: [{{path: /a, signers: [{KEY}]}}]\n"), &known, "image_paths[0]"),
        (
            format!("image_paths: [{{path: /a, signers: [{KEY}]}}]\nsigners: any\n"),
            &Provenance { signers: signed(&["F00"]), ..sites.clone() },
            "signed by F00, none of the site's signers (image_paths[0].signers)",
        ),
        ("max_image_size: 5k\n".into(), &sites, "image_paths[0],max_image_size"),
        (
            "max_image_size: '4999'\n".into(),
            &sites,
            "5000 bytes long, and the site runs images of at most 4999 (max_image_size)",
        ),
        ("max_image_size: '4999'\npartitions: {gpu: {max_image_size: any}}\n".into(), &sites, "image_paths[0]"),
    ] {
        let found = verdict(&text, image);
        assert!(found.starts_with(wanted) || found.contains(wanted), "{text}: {found}");
    }
    // All lines that apply are listed, and the one that decided.
    let text = format!("user_images: fuse\ndigests: [{A}, {B}]\npartitions: {{gpu: {{signers: [{KEY}]}}}}\n");
    assert_eq!(verdict(&text, &known), "image_paths[0],digests,partitions.gpu.signers");
    let own = Provenance { below: None, wanted_owner: None, ..known };
    let missing =
        judge(&effective(&config("partitions: {cpu: {user_images: deny}}\n"), &unknown_job()), &own).unwrap_err();
    assert!(
        missing
            .refuse("i")
            .line()
            .contains("the rule partitions.cpu.user_images of the site needs the job's partition")
    );
}

#[test]
fn directories_and_ext3_need_more_than_a_file() {
    let with =
        |user_images: &str, directories: &str| format!("user_images: {user_images}\ndirectories: {directories}\n");
    let judged = |text: &str, form, image: &Provenance| judge(&rules(text), &Provenance { form, ..image.clone() });
    let (own, sites) = (file(2001, 0o40_755, None), file(0, 0o40_755, Some(1)));
    let kernel = with("kernel", "deny");
    let denied = || Err(Denied::Directories("directories".into()));
    assert_eq!(judged(&kernel, Form::Directory, &own), denied());
    assert_eq!(judged(&kernel, Form::Directory, &sites), denied());
    assert_eq!(judged("user_images: kernel\n", Form::Directory, &own), denied());
    assert_eq!(judged(&kernel, Form::FileWithExt3, &own), Err(Denied::Ext3));
    assert!(judged(&kernel, Form::FileWithExt3, &sites).unwrap().trusted);
    let allow = with("kernel", "allow");
    let rule = "user_images=kernel,directories=allow".into();
    assert_eq!(judged(&allow, Form::Directory, &own), Ok(Grant { rule, reader: Reader::Kernel, trusted: false }));
    let strict = with("deny", "allow");
    let user_images = || Err(Denied::UserImages("user_images".into()));
    assert_eq!(judged(&strict, Form::Directory, &own), user_images());
    let rule = "image_paths[1],directories=allow".into();
    assert_eq!(judged(&strict, Form::Directory, &sites), Ok(Grant { rule, reader: Reader::Kernel, trusted: true }));
    assert_eq!(judged(&strict, Form::FileWithExt3, &own), user_images());
    // A directory has no digest and no signature, but no length either.
    let listed =
        |list: &str| verdict(&format!("{allow}{list}"), &Provenance { form: Form::Directory, ..sites.clone() });
    assert!(listed(&format!("digests: [{A}]\n")).starts_with("it has no digest"));
    assert!(listed(&format!("signers: [{KEY}]\n")).ends_with("is not known (signers)"));
    assert_eq!(listed("max_image_size: 4k\n"), "image_paths[1],directories=allow");
}

#[test]
fn with_his_own_rights_a_user_runs_what_needs_no_others() {
    let grant = Grant { rule: "own rights".into(), reader: Reader::Own, trusted: false };
    assert_eq!((own(Form::File), own(Form::Directory)), (Ok(grant.clone()), Ok(grant)));
    let line = own(Form::FileWithExt3).unwrap_err().refuse("a.sif").line();
    assert_eq!(line, "coracle: a.sif: its overlay partition is an ext3, which only root can mount [policy]");
}

#[test]
fn the_table_of_owners_and_modes() {
    let rule =
        |index: usize| Ok(Grant { rule: format!("image_paths[{index}]"), reader: Reader::Kernel, trusted: true });
    let own = |word: &str, reader| Ok(Grant { rule: format!("user_images={word}"), reader, trusted: false });
    let kernel = own("kernel", Reader::Kernel);
    let fuse = own("fuse", Reader::Fuse);
    for (user_images, image, verdict) in [
        ("", file(0, 0o100_644, Some(3)), rule(3)),
        ("deny", file(0, 0o100_644, Some(0)), rule(0)),
        ("", file(0, 0o100_664, Some(0)), Err(Denied::NoDefault)),
        ("", file(0, 0o100_646, Some(0)), Err(Denied::NoDefault)),
        ("", file(2001, 0o100_644, Some(0)), Err(Denied::NoDefault)),
        ("", file(0, 0o100_644, None), Err(Denied::NoDefault)),
        ("deny", file(2001, 0o100_600, None), Err(Denied::UserImages("user_images".into()))),
        ("kernel", file(2001, 0o100_600, None), kernel.clone()),
        ("kernel", file(2001, 0o100_644, Some(0)), kernel),
        ("fuse", file(2001, 0o100_600, None), fuse.clone()),
        ("fuse", file(0, 0o100_664, Some(0)), fuse),
        ("fuse", file(0, 0o100_644, Some(1)), rule(1)),
    ] {
        let text = if user_images.is_empty() { String::new() } else { format!("user_images: {user_images}\n") };
        assert_eq!(judge(&rules(&text), &image), verdict, "{user_images:?} {image:?}");
    }
}

#[test]
fn a_refusal_names_the_key() {
    let user_images = Denied::UserImages("qos.low.user_images".into()).refuse("a.sif").line();
    assert!(user_images.contains("(qos.low.user_images: deny)"));
    assert!(Denied::NoDefault.refuse("a.sif").line().contains("user_images is not set"));
    assert!(Denied::Directories("directories".into()).refuse("/tree").line().contains("(directories: deny)"));
    assert!(Denied::Ext3.refuse("a.sif").line().contains("image_paths"));
}

#[test]
fn a_stored_image_runs_whatever_the_site_thinks_of_users_own_and_lists_hold_for_it() {
    let stored = Provenance { stored: true, ..file(990, 0o100_440, None) };
    for text in ["", "user_images: deny\n", "user_images: fuse\n"] {
        assert_eq!(judge(&rules(text), &stored).map(|grant| (grant.rule, grant.trusted)), Ok(("store".into(), true)));
        let ext3 = Provenance { form: Form::FileWithExt3, ..stored.clone() };
        assert_eq!(judge(&rules(text), &ext3), Err(Denied::Ext3));
    }
    let listed = format!("signers: [{KEY}]\n");
    assert!(
        verdict(&listed, &Provenance { signers: Some(Vec::new()), ..stored.clone() }).contains("no valid signature")
    );
    assert_eq!(verdict(&listed, &Provenance { signers: Some(vec![KEY.to_owned()]), ..stored }), "store,signers");
}
