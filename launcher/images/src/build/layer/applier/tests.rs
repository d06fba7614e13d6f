//! Tests layers on each other, and hostile layers.
#![forbid(unsafe_code)]

use super::*;
use crate::sources::archive::Reader;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use ::tar::{Builder, EntryType, Header};

/// Directory of the host beside the image, which no image may change.
struct Host {
    top: tempfile::TempDir,
    root: Root,
}

impl Host {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("host")).unwrap();
        std::fs::write(top.path().join("host/canary"), "sings").unwrap();
        let root = Root::create(&top.path().join("root")).unwrap();
        Self { top, root }
    }

    fn layers(&mut self, owners: Owners, layers: &[Vec<u8>]) -> Result<(), Refusal> {
        let mut applier = Applier::new(&mut self.root, owners);
        for layer in layers {
            applier.begin(Named::default(), Meaning::Changes);
            let mut bytes = Cursor::new(layer);
            let mut tar = Reader::new(&mut bytes);
            while let Some(entry) = tar.next_entry().map_err(|error| Named::default().refuse(&error))? {
                applier.entry(&entry, &mut tar)?;
            }
        }
        applier.finish().map(|_| ())
    }

    fn apply(&mut self, layers: &[Vec<u8>]) {
        self.layers(Owners::Own, layers).unwrap();
    }

    /// Cause of the refusal of the layers. Checks that the host's directory is unchanged.
    fn refused(&mut self, layers: &[Vec<u8>]) -> String {
        let refusal = self.layers(Owners::Own, layers).unwrap_err();
        assert_eq!(refusal.kind, Fault::ImageFormat, "{refusal}");
        self.check_host();
        refusal.cause
    }

    fn check_host(&self) {
        let host = self.top.path().join("host");
        let names: Vec<_> = host.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        assert_eq!(std::fs::read(host.join("canary")).unwrap(), b"sings");
        assert_eq!(host.join("canary").metadata().unwrap().nlink(), 1);
        let top: Vec<_> = self.top.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(top.len(), 2);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Names of all files.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in self.root.path().join(&directory).read_dir().unwrap() {
                let entry = entry.unwrap();
                let path = directory.join(entry.file_name());
                names.push(path.display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path);
                }
            }
        }
        names.sort();
        names
    }

    fn noted(&self) -> String {
        let definitions = self.root.ledger.definitions(|_, _, _| true);
        String::from_utf8(definitions.lines).unwrap()
    }
}

/// Makes a tar file: `name` is a file, `name/` a directory, `name -> target` a link, `name = target` a hard link.
fn tar(entries: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for text in entries {
        let mut header = header(EntryType::Regular);
        if let Some((name, target)) = text.split_once(" -> ") {
            header.set_entry_type(EntryType::Symlink);
            raw(&mut builder, header, name, target, "");
        } else if let Some((name, target)) = text.split_once(" = ") {
            header.set_entry_type(EntryType::Link);
            raw(&mut builder, header, name, target, "");
        } else if text.ends_with('/') {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            raw(&mut builder, header, text, "", "");
        } else {
            raw(&mut builder, header, text, "", text);
        }
    }
    builder.into_inner().unwrap()
}

fn header(kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(1_600_000_000);
    for id in [Header::set_uid, Header::set_gid] {
        id(&mut header, 0);
    }
    header
}

/// Writes names as they are: the crate would refuse those that matter here.
fn raw(builder: &mut Builder<Vec<u8>>, mut header: Header, name: &str, link: &str, data: &str) {
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(data.len() as u64);
    header.set_cksum();
    builder.append(&header, data.as_bytes()).unwrap();
}

fn pax(builder: &mut Builder<Vec<u8>>, records: &[(&str, &[u8])]) {
    builder.append_pax_extensions(records.iter().copied()).unwrap();
}

#[test]
fn whiteouts_remove_what_is_below_and_nothing_of_the_same_layer() {
    let mut host = Host::new();
    host.apply(&[
        tar(&["a", "d/", "d/x", "d/y/", "d/y/z", "o/", "o/old", "o/both/", "o/both/old", ".wh.a"]),
        tar(&[
            ".wh.a",
            "d/.wh.y",
            "o/new",
            "o/both/new",
            "o/.wh..wh..opq",
            "late",
            ".wh.late",
            "none/.wh.x",
            "d/.wh..wh.plnk",
        ]),
    ]);
    assert_eq!(host.names(), ["d", "d/x", "late", "o", "o/both", "o/both/new", "o/new"]);
    host.apply(&[tar(&["x"]), tar(&["d/", "d/.wh..wh..opq", "d/w", ".wh.o", "o/", "o/again"])]);
    assert_eq!(host.names(), ["d", "d/w", "late", "o", "o/again", "x"]);
}

#[test]
fn a_plain_tar_file_has_no_whiteouts() {
    let mut host = Host::new();
    let bytes = tar(&["a", ".wh.a"]);
    let mut applier = Applier::new(&mut host.root, Owners::Own);
    applier.begin(Named::default(), Meaning::Tree);
    let mut bytes = Cursor::new(bytes);
    let mut tar = Reader::new(&mut bytes);
    while let Some(entry) = tar.next_entry().unwrap() {
        applier.entry(&entry, &mut tar).unwrap();
    }
    applier.finish().unwrap();
    assert_eq!(host.names(), [".wh.a", "a"]);
}

#[test]
fn a_whiteout_of_nothing_is_refused() {
    for name in [".wh.", ".wh..", ".wh..."] {
        let cause = Host::new().refused(&[tar(&["a"]), tar(&[name])]);
        assert!(cause.contains("nothing is gone"), "{cause}");
    }
}

#[test]
fn files_replace_directories_and_directories_replace_files_and_links() {
    let mut host = Host::new();
    host.apply(&[
        tar(&["f", "d/", "d/x/", "d/x/y", "l -> d", "keep/", "keep/x"]),
        tar(&["f/", "f/z", "d", "l/", "l/new", "keep/"]),
    ]);
    assert_eq!(host.names(), ["d", "f", "f/z", "keep", "keep/x", "l", "l/new"]);
    assert_eq!(host.read("d"), "d");
    assert!(host.path("l").symlink_metadata().unwrap().is_dir());
}

#[test]
fn hard_links_are_one_file_also_across_layers() {
    let mut host = Host::new();
    host.apply(&[tar(&["a", "s -> a"]), tar(&["b = a", "d/c = ./b", "a = a", "t = s"]), tar(&["a"])]);
    let inode = |name: &str| host.path(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("b"), inode("d/c"));
    assert_ne!(inode("a"), inode("b"));
    assert_eq!(inode("s"), inode("t"));
    assert!(host.refused(&[tar(&["e = none"])]).contains("which is no file"));
    assert!(host.refused(&[tar(&["e = d"])]).contains("which is no file"));
    assert!(host.refused(&[tar(&["d = d/c"])]).contains("whose place it takes"));
}

#[test]
fn nothing_is_written_outside() {
    let outside = |host: &Host| host.top.path().join("host").display().to_string();
    for name in ["../host/new", "a/../../host/new", "..", "x/.."] {
        let mut host = Host::new();
        assert!(host.refused(&[tar(&[name])]).contains(".."), "{name}");
    }
    let mut host = Host::new();
    let directory = outside(&host);
    // Absolute names start at the image's root; a link that leads out has no target.
    host.apply(&[tar(&["/abs"])]);
    assert_eq!(host.names(), ["abs"]);
    host.check_host();
    for link in [directory.as_str(), "../host", "/../../host", "/proc/self/cwd", "/proc/self/root"] {
        let mut host = Host::new();
        symlink(link, host.path("l")).unwrap();
        assert!(host.refused(&[tar(&["x = l/canary"])]).contains("which is no file"));
        // The target of a link is made within the image.
        host.apply(&[tar(&["l/within"]), tar(&["l/new/"])]);
        host.check_host();
        let made = host.names();
        assert!(made.iter().any(|name| name.ends_with("/within") || name == "host/within"), "{link}: {made:?}");
        host.apply(&[tar(&["y = l"]), tar(&["l/.wh.canary", "l/.wh..wh..opq"])]);
        host.check_host();
        // A file takes the place of the link, and is not written through it.
        host.apply(&[tar(&["l", "y/", "y/canary"])]);
        assert_eq!(host.read("l"), "l");
        host.check_host();
    }
    for target in ["../host/canary", "/host/../../host/canary"] {
        assert!(Host::new().refused(&[tar(&[&format!("x = {target}")])]).contains(".."));
    }
    let mut host = Host::new();
    let canary = format!("{}/canary", outside(&host));
    assert!(host.refused(&[tar(&[&format!("x = {canary}")])]).contains("which is no file"));
}

#[test]
fn an_entry_below_a_link_to_nothing_is_made_where_the_link_leads() {
    let mut host = Host::new();
    std::fs::create_dir(host.path("var")).unwrap();
    for (link, target) in
        [("var/lock", "/run/lock"), ("up", "missing/../../there"), ("chain", "var/next"), ("var/next", "end")]
    {
        symlink(target, host.path(link)).unwrap();
    }
    host.apply(&[tar(&["var/lock/x"]), tar(&["up/y", "chain/z", "var/lock/.wh.x"])]);
    let names = host.names();
    for name in ["run/lock", "missing", "there/y", "var/end/z"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name == "run/lock/x"), "{names:?}");
    // Links that lead to each other, each of which first makes a missing directory.
    for number in 0..60 {
        symlink(format!("m{number}/../l{}", number + 1), host.path(&format!("l{number}"))).unwrap();
    }
    assert!(host.refused(&[tar(&["l0/x"])]).contains("links that lead nowhere"));
    symlink("loop", host.path("loop")).unwrap();
    assert!(host.refused(&[tar(&["loop/x"])]).contains("links that lead nowhere"));
}

#[test]
fn a_file_of_a_layer_below_makes_room_for_a_directory() {
    let mut host = Host::new();
    host.apply(&[tar(&["f", "d/g"]), tar(&["f/x", "d/g/deep/y", "d/none/.wh.z", "d/g/.wh.gone"])]);
    assert_eq!(host.names(), ["d", "d/g", "d/g/deep", "d/g/deep/y", "f", "f/x"]);
    let mut host = Host::new();
    host.apply(&[tar(&["f"]), tar(&["f/.wh.x", "f/.wh..wh..opq"])]);
    assert_eq!(host.names(), ["f"]);
}

#[test]
fn links_on_the_way_are_followed_within_the_image_and_what_is_noted_is_noted_there() {
    let mut host = Host::new();
    let mut builder = Builder::new(Vec::new());
    raw(&mut builder, header(EntryType::Directory), "usr/lib", "", "");
    raw(&mut builder, header(EntryType::Symlink), "lib", "/usr/lib", "");
    let mut own = header(EntryType::Regular);
    own.set_uid(7);
    raw(&mut builder, own, "lib/a", "", "text");
    let mut device = header(EntryType::Char);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    raw(&mut builder, device.clone(), "lib/null", "", "");
    raw(&mut builder, device, "lib/gone", "", "");
    host.apply(&[builder.into_inner().unwrap(), tar(&["other = lib/null", "lib/.wh.gone"])]);
    assert_eq!(host.read("usr/lib/a"), "text");
    let noted = host.noted();
    assert!(
        noted.contains("\"usr/lib/a\" m 644 7 0\n") && noted.contains("\"usr/lib/null\" c 644 0 0 1 3\n"),
        "{noted}"
    );
    assert!(noted.contains("\"other\" c 644 0 0 1 3\n") && !noted.contains("gone"), "{noted}");
    assert!(!host.path("usr/lib/null").exists());
    host.apply(&[tar(&["x"]), tar(&["usr/lib/null", "lib/", ".wh.other"])]);
    let noted = host.noted();
    assert!(!noted.contains(" c ") && host.path("usr/lib/a").exists(), "{noted}");
    assert_eq!(host.names(), ["lib", "usr", "usr/lib", "usr/lib/a", "usr/lib/null", "x"]);
}

#[test]
fn an_opaque_directory_has_no_devices_of_below() {
    let mut host = Host::new();
    let mut builder = Builder::new(Vec::new());
    raw(&mut builder, header(EntryType::Char), "dev/null", "", "");
    let mut upper = Builder::new(Vec::new());
    raw(&mut upper, header(EntryType::Fifo), "dev/pipe", "", "");
    raw(&mut upper, header(EntryType::Block), "dev/disk", "", "");
    raw(&mut upper, header(EntryType::Regular), "dev/.wh..wh..opq", "", "");
    host.apply(&[builder.into_inner().unwrap(), upper.into_inner().unwrap()]);
    let root = &host.root.ledger;
    assert!(!root.is_device(Path::new("dev/null")) && root.is_device(Path::new("dev/disk")));
    assert_eq!(host.names(), ["dev", "dev/pipe"]);
}

#[test]
fn modes_that_would_be_in_the_way_are_noted_and_times_are_kept() {
    let mut host = Host::new();
    let mut builder = Builder::new(Vec::new());
    let with = |kind, mode, time| {
        let mut header = header(kind);
        header.set_mode(mode);
        header.set_mtime(time);
        header
    };
    raw(&mut builder, with(EntryType::Directory, 0o555, 1000), "d", "", "");
    raw(&mut builder, with(EntryType::Regular, 0o000, 2000), "d/none", "", "x");
    raw(&mut builder, with(EntryType::Regular, 0o4755, 8_000_000_000), "d/su", "", "x");
    pax(&mut builder, &[("mtime", b"-12.5")]);
    raw(&mut builder, with(EntryType::Regular, 0o644, 5), "d/old", "", "x");
    raw(&mut builder, with(EntryType::Regular, 0o644, 3000), "implied/x", "", "x");
    host.apply(&[builder.into_inner().unwrap()]);
    let noted = host.noted();
    assert!(noted.contains("\"d\" m 555 0 0\n") && noted.contains("\"d/none\" m 0 0 0\n"), "{noted}");
    let time = |name: &str| host.path(name).metadata().unwrap().mtime();
    assert_eq!((time("d"), time("d/none"), time("d/old"), time("implied")), (1000, 2000, 0, 3000));
    assert_eq!((time("d/su"), time("")), (u32::MAX.into(), u32::MAX.into()));
    assert_eq!(host.path("d/none").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn long_names_attributes_and_global_records_are_read() {
    let mut host = Host::new();
    let long = format!("{}/{}", "long".repeat(40), "name".repeat(40));
    let mut builder = Builder::new(Vec::new());
    let mut gnu = header(EntryType::Regular);
    gnu.set_size(3);
    builder.append_data(&mut gnu, &long, &b"gnu"[..]).unwrap();
    pax(&mut builder, &[("path", "pâx".repeat(50).as_bytes()), ("uid", b"3000000"), ("SCHILY.xattr.user.a", b"\n=\0")]);
    raw(&mut builder, header(EntryType::Regular), "short", "", "pax");
    let mut global = Header::new_ustar();
    global.set_entry_type(EntryType::XGlobalHeader);
    let records = "18 comment=commit\n9 gid=42\n";
    global.set_size(records.len() as u64);
    global.set_cksum();
    builder.append(&global, records.as_bytes()).unwrap();
    raw(&mut builder, header(EntryType::Regular), "global", "", "");
    host.apply(&[builder.into_inner().unwrap()]);
    assert_eq!(host.read(&long), "gnu");
    assert_eq!(host.read(&"pâx".repeat(50)), "pax");
    let noted = host.noted();
    assert!(noted.contains(" m 644 3000000 0\n") && noted.contains("\"global\" m 644 0 42\n"), "{noted}");
    if host.root.has_attributes {
        let mut value = [0; 10];
        let size = rustix::fs::getxattr(host.path(&"pâx".repeat(50)), "user.a", &mut value).unwrap();
        assert_eq!(&value[..size], b"\n=\0");
    }
}

#[test]
fn names_that_are_too_much_are_refused() {
    let name = |length: usize| {
        let mut builder = Builder::new(Vec::new());
        pax(&mut builder, &[("path", "a/".repeat(length / 2).as_bytes())]);
        raw(&mut builder, header(EntryType::Regular), "short", "", "");
        builder.into_inner().unwrap()
    };
    assert!(Host::new().refused(&[name(2000)]).contains("in each other"));
    assert!(Host::new().refused(&[name(6000)]).contains("a name of"));
    // Half of it and a link make a path that is too deep, too.
    let deep = "d/".repeat(300);
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header(EntryType::Directory), &deep, &b""[..]).unwrap();
    builder.append_link(&mut header(EntryType::Symlink), "l", &deep).unwrap();
    builder.append_data(&mut header(EntryType::Directory), format!("l/{deep}"), &b""[..]).unwrap();
    let cause = Host::new().refused(&[builder.into_inner().unwrap()]);
    assert!(cause.contains("in each other"), "{cause}");
    // A record with a stated length of 4 GiB: the statement is enough.
    let mut record = header(EntryType::GNULongName);
    record.set_size(4 << 30);
    record.set_cksum();
    let cause = Host::new().refused(&[record.as_bytes().to_vec()]);
    assert!(cause.contains("a record of 4294967296 bytes"), "{cause}");
}

#[test]
fn a_file_that_fits_nowhere_is_refused_before_it_is_written() {
    let mut host = Host::new();
    let mut large = header(EntryType::Regular);
    large.as_gnu_mut().unwrap().name[0] = b'a';
    large.set_size(1 << 60);
    large.set_cksum();
    let refusal = host.layers(Owners::Own, &[large.as_bytes().to_vec()]).unwrap_err();
    assert!(
        refusal.cause.contains("no space is left")
            && refusal.hint.as_ref().is_some_and(|hint| hint.contains("CORACLE_TMPDIR")),
        "{refusal}"
    );
    assert!(host.names().is_empty());
}

#[test]
fn what_is_cut_off_or_is_no_tar_file_is_refused() {
    let whole = tar(&["a", "b"]);
    for keep in [0, 100, 512 + 1, 1024 + 700] {
        assert_eq!(Host::new().refused(&[whole[..keep].to_vec()]), "ends too early", "{keep}");
    }
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    assert!(Host::new().refused(&[damaged]).contains("no tar file, or a damaged one"));
    assert!(Host::new().refused(&[vec![b'x'; 5000]]).contains("no tar file"));
    let mut builder = Builder::new(Vec::new());
    raw(&mut builder, header(EntryType::new(b'M')), "part", "", "");
    assert!(Host::new().refused(&[builder.into_inner().unwrap()]).contains("unknown kind 'M'"));
    let mut builder = Builder::new(Vec::new());
    pax(&mut builder, &[("uid", b"4294967295")]);
    raw(&mut builder, header(EntryType::Regular), "x", "", "");
    assert!(Host::new().refused(&[builder.into_inner().unwrap()]).contains("uid 4294967295"));
}

#[test]
fn a_device_is_an_entry_of_the_ledger_alone() {
    let mut host = Host::new();
    let mut builder = Builder::new(Vec::new());
    let mut device = header(EntryType::Block);
    device.set_device_major(259).unwrap();
    device.set_device_minor(1_000_000).unwrap();
    raw(&mut builder, device, "d/disk", "", "");
    host.apply(&[builder.into_inner().unwrap()]);
    assert_eq!(host.names(), ["d"]);
    assert!(host.noted().contains("\"d/disk\" b 644 0 0 259 1000000\n"));
    // A file below it needs a directory in its place.
    host.apply(&[tar(&["d/disk/x"])]);
    assert!(!host.root.ledger.is_device(Path::new("d/disk")));
}
