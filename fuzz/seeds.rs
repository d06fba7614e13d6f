//! `seeds CORPUS`: what each target starts from, below CORPUS. Needs mksquashfs, mkfs.erofs, tar, gzip, zstd, xz and bzip2.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgp::composed::{ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, Password};
use rand::SeedableRng;
use rand::rngs::StdRng;

mod archive;
#[path = "../tests/images/elf_writer.rs"]
mod elf_writer;
#[path = "../tests/images/sif_writer.rs"]
mod sif_writer;
mod signed;
#[path = "../tests/images/squashfs_writer.rs"]
mod squashfs_writer;

use sif_writer::{Part, native, sif};

fn main() {
    let corpus = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds CORPUS"));
    let tree = corpus.join("tree");
    for directory in ["a", "b/c", "empty"] {
        fs::create_dir_all(tree.join(directory)).expect("a directory can be made");
    }
    for (name, text) in [("a/short", "short"), ("b/c/long", &"long ".repeat(900)), ("b/d", "d")] {
        fs::write(tree.join(name), text).expect("a file can be written");
    }
    let _ = std::os::unix::fs::symlink("a/short", tree.join("link"));
    let mut squashfs = vec![("written".to_owned(), squashfs_writer::squashfs().bytes)];
    for how in ["gzip", "lzo", "lz4", "xz", "zstd"] {
        let out = corpus.join(format!("{how}.out"));
        run("mksquashfs", &[&tree, &out], &["-comp", how, "-b", "4096", "-noappend", "-quiet", "-no-progress"]);
        squashfs.push((how.to_owned(), fs::read(&out).expect("mksquashfs has made it")));
        fs::remove_file(&out).expect("what was made can be removed");
    }
    for (name, bytes) in &squashfs {
        put(&corpus, "squashfs_tables", name, bytes);
        put(&corpus, "squashfs_deep", name, bytes);
    }
    for one in squashfs_writer::crafted() {
        put(&corpus, "squashfs_deep", &one.name, &one.bytes);
    }
    let part = |kind| Part { filesystem: 1, kind, architecture: native(), data: &squashfs[0].1 };
    put(&corpus, "sif_header", "one", &sif(&[part(2)]));
    put(&corpus, "sif_header", "overlay", &sif(&[part(2), part(4)]));
    let out = corpus.join("erofs.out");
    run("mkfs.erofs", &[&out, &tree], &["--quiet"]);
    put(&corpus, "erofs", "plain", &fs::read(&out).expect("mkfs.erofs has made it"));
    fs::remove_file(&out).expect("what was made can be removed");
    fs::remove_dir_all(&tree).expect("what was made can be removed");
    let says = elf_writer::Says {
        soname: "libmpi.so.40",
        needed: &["libc.so.6"],
        run_path: "/opt/mpi/lib",
        wanted: &[("libc.so.6", &["GLIBC_2.34", "GLIBC_2.36"])],
        defined: &["MPI_1"],
        ..elf_writer::Says::default()
    };
    put(&corpus, "elf", "library", &elf_writer::library(&says));
    if let Ok(list) = fs::read("/etc/ld.so.cache") {
        put(&corpus, "elf", "list", &list);
    }
    put(&corpus, "config", "example", include_bytes!("../slurm-conf-examples/coracle.yaml"));
    put(&corpus, "cdi", "yaml", include_bytes!("../tests/gpus/nvidia.yaml"));
    put(&corpus, "cdi", "json", include_bytes!("../tests/gpus/nvidia.json"));
    put(&corpus, "request", "request", b"2:image=/a/b.sif;as=b.sif;bind=/x:/y:ro");
    put(&corpus, "request", "bind", b"/data:/srv:ro");
    put(&corpus, "wire", "here", b"directory=/home\0pmix=/run\0");
    for (name, bytes) in &squashfs {
        put(&corpus, "squashfs_files", name, bytes);
    }
    texts(&corpus);
    scripts(&corpus);
    archives(&corpus);
    images(&corpus);
    signatures(&corpus);
}

/// Texts of the node, of children and of the store.
fn texts(corpus: &Path) {
    put(corpus, "fstab", "two", b"# mounts\n/dev/sda1 /data ext4 defaults 0 2\nproc\t/proc proc defaults\n");
    put(
        corpus,
        "gres",
        "gpus",
        b"0,3\nNodeName=n[1-3,07] Name=gpu Type=a100 File=/dev/nvidia[0-3]\n\
        Name=gpu MultipleFiles=/dev/nvidia0,/dev/nvidia-caps/nvidia-cap1\nAutoDetect=nvml\nName=mps \\\n Count=4\n",
    );
    let conf = b"ClusterName=x # comment\nPluginDir=/usr/lib/slurm:/opt\nGresTypes=gpu,mps\nAuthType=auth/munge\n\
        AuthInfo=socket=/run/munge.socket,ttl=3\nTaskProlog=prolog\nInclude nodes.conf\nSlurmdSpoolDir=/var/%n\n\
        SlurmctldParameters=enable_configless\nUnkillableStepTimeout=60\nMpiDefault=pmix\n";
    let plugstack = b"include plugstack.conf.d/*.conf\nrequired /usr/lib/coracle/spank_coracle.so defaults=on\n\
        optional other.so\n";
    put(corpus, "slurm_conf", "both", &[&conf[..], plugstack].join(&0));
    put(corpus, "changes", "all", b"+PATH=/bin\0-HOME\0~LIST=a,b\0#GPUS=0,1\0");
    put(corpus, "changes", "record", b"1:7.0;PATH=+/bin,+/usr/bin;HOME=-,+/home/a");
    let reply = br#"{"found":{"signers":[{"key":"SHA256:abc","name":"Site <site@example.org>"}],"digest":null,"structure":"x"}}"#;
    put(corpus, "child_replies", "found", reply);
    put(
        corpus,
        "child_replies",
        "refused",
        br#"{"refused":{"kind":"image-format","object":"a","cause":"b","hint":"c"}}"#,
    );
    put(corpus, "child_replies", "words", b"sif 4096 8192 gzip 16384 4096 ext3");
    let digest = format!("sha256:{}", "0f".repeat(32));
    let record = format!(
        r#"{{"version":1,"digest":"{digest}","stored":1700000000,"uid":0,"holds":"squashfs","signers":["A"],"scanned":{{"by":"/s","output":"ok"}},"verity":null,"file":{{"inode":1,"size":2,"modified":[3,4]}}}}"#
    );
    put(corpus, "store", "record", record.as_bytes());
    put(corpus, "store", "stored", format!(r#"{{"stored":{record}}}"#).as_bytes());
    put(corpus, "store", "copy", br#"{"copy":{"name":"a/b"}}"#);
    put(corpus, "store", "copied", br#"{"copied":{"bytes":1,"total":2}}"#);
    let line = format!(
        r#"{{"version":1,"time":"2026-01-01T00:00:00.000000Z","job":7,"step":"batch","node":"n1","uid":1000,"user":"a","image":"/x.sif","digest":"{digest}","signers":["A"],"verdict":"started","nodes":1,"tasks":2,"options":{{"bind":"/a"}},"binds":[{{"source":"/a","target":"/b","access":"ro","origin":"user"}}],"devices":["/dev/x"],"microseconds":{{"open":7}}}}"#
    );
    put(corpus, "audit_record", "started", line.as_bytes());
}

/// Scripts and definition files.
fn scripts(corpus: &Path) {
    let plain = "#!/bin/sh\nexport A=\"${B:-\\\"x y\\\"}\" C='$A'\nif [ -z \"$HOST\" ] && test -n \"$A\"; then\n  unset C\nelif ! false; \
        then\n  : ${D:=z}\nelse\n  export E=\\ \nfi || true\n";
    put(corpus, "env_scripts", "plain", plain.as_bytes());
    put(corpus, "env_scripts", "two", b"A=1; export B\0export C=$A PATH=/opt/bin:$PATH; B=\"${C:+d}\"");
    put(corpus, "env_scripts", "shell", b"export A=$(date)\n. /x.sh\n");
    let definition = "# one\nBootstrap: docker\nFrom: debian:{{ TAG }}\nStage: build\n\n%arguments\nTAG=12\n%files\n/a /b\n\"c d\" e\n\
        %post -c /bin/bash\necho {{ TAG }} # no {{ comment }}\n%environment\nexport A=1\n%labels\nAuthor me\n%runscript\nexec \"$@\"\n\
        %appinstall foo\ntrue\n%apprun foo\n#!/bin/bash\nfoo\nBootstrap: scratch\n%files from build\n/b\n%help\nhelp\n";
    put(corpus, "definition", "two", definition.as_bytes());
    put(corpus, "definition", "given", b"bootstrap: localimage\nfrom: {{A}}{{B}} \\\n.sif\n%test\ntrue\n");
    for (number, name) in
        ["debian", "docker://ghcr.io/a/b:1", "localhost:5000/a__b-c.d", "[::1]:5000/x"].iter().enumerate()
    {
        put(corpus, "image_name", &number.to_string(), name.as_bytes());
    }
    put(corpus, "image_name", "digest", format!("quay.io/a/b@sha256:{}", "0f".repeat(32)).as_bytes());
}

/// Tar files, also sparse and compressed ones.
fn archives(corpus: &Path) {
    let mut plain = Vec::new();
    archive::add(&mut plain, b'5', "a/", b"");
    archive::add(&mut plain, b'0', "a/file", b"contents");
    archive::add(&mut plain, b'x', "pax", b"12 path=a\nb\n26 SCHILY.xattr.user.x=\n\xff\n20 mtime=1700000.25\n");
    archive::add(&mut plain, b'0', "short", b"x");
    archive::add(&mut plain, b'L', "long", &b"long/".repeat(60));
    archive::add(&mut plain, b'2', "link", b"");
    let sparse =
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=hole\n29 GNU.sparse.realsize=9000\n";
    archive::add(&mut plain, b'x', "pax", sparse);
    let mut pieces = b"1\n4096\n8\n".to_vec();
    pieces.resize(512, 0);
    archive::add(&mut plain, b'0', "hole", &[&pieces[..], b"contents"].concat());
    plain.resize(plain.len() + 1024, 0);
    put(corpus, "tar", "written", &archive::with_sums(&plain));
    // A file with a hole, as GNU tar stores it in each of its formats.
    let tree = corpus.join("holes");
    fs::create_dir_all(&tree).expect("a directory can be made");
    let file = fs::File::create(tree.join("hole")).expect("a file can be made");
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 1 << 20).expect("a file can be written");
    let formats = ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"];
    for (number, format) in formats.iter().enumerate() {
        let out = corpus.join("tar.out");
        let mut command = Command::new("tar");
        command.args(["--sparse", format]).args((number > 0).then_some("--format=posix"));
        command.arg("-cf").arg(&out).arg("-C").arg(&tree).arg("hole");
        finish("tar", &mut command);
        put(corpus, "tar", &number.to_string(), &fs::read(&out).expect("tar has made it"));
        fs::remove_file(&out).expect("what was made can be removed");
    }
    fs::remove_dir_all(&tree).expect("what was made can be removed");
    let plain = corpus.join("plain.out");
    fs::write(&plain, b"text text text ".repeat(300)).expect("a file can be written");
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        let output = Command::new(program).arg("-c").arg(&plain).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        put(corpus, "compressed", program, &output.stdout);
    }
    fs::remove_file(&plain).expect("what was made can be removed");
}

/// Manifests and configurations.
fn images(corpus: &Path) {
    let config = r#"{"architecture":"amd64","config":{"User":"1000","Env":["PATH=/bin:/usr/bin","A=it's","B="],"Entrypoint":["./a"],"Cmd":["b"],"WorkingDir":"/w","Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["sha256:@0"]}}"#;
    put(corpus, "oci_config", "config", config.replace('@', &"0".repeat(63)).as_bytes());
    let kind = "application/vnd.oci.image";
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{kind}.config.v1+json","digest":"sha256:@1","size":#1}},"layers":[{{"mediaType":"{kind}.layer.v1.tar","digest":"sha256:@0","size":#0}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}.manifest.v1+json","digest":"sha256:@2","size":#2,"platform":{{"architecture":"amd64","os":"linux"}},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#
    );
    let docker = r#"[{"Config":"blobs/sha256/@1","RepoTags":["a:latest"],"Layers":["blobs/sha256/@0"]}]"#;
    let texts = ["layer", config, &manifest, &index, docker].map(str::as_bytes);
    put(corpus, "layouts", "both", &texts.join(&0xff));
    let digest = "0f".repeat(32);
    let fill = |text: &str| text.replace(['@', '#'], "").replace("sha256:", &format!("sha256:{digest}_"));
    let plain = |text: &str| ["_1", "_0", "_2"].iter().fold(fill(text), |text, end| text.replace(end, ""));
    put(corpus, "manifests", "image", plain(&manifest).as_bytes());
    put(corpus, "manifests", "index", plain(&index).as_bytes());
}

/// Signed images, and the keys.
fn signatures(corpus: &Path) {
    let key = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_sign(true)
        .can_certify(true)
        .primary_user_id("Site <site@example.org>".into())
        .build()
        .expect("the parameters are good")
        .generate(StdRng::seed_from_u64(1))
        .expect("a key can be made");
    let public = key.to_public_key().to_armored_string(ArmorOptions::default()).expect("a key can be written");
    put(corpus, "keys", "armoured", public.as_bytes());
    put(corpus, "keys", "binary", &key.to_public_key().to_bytes().expect("a key can be written"));
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    put(corpus, "keys", "pem", pem.as_bytes());
    let image = signed::image();
    let path = corpus.join("image.out");
    fs::write(&path, &image).expect("a file can be written");
    let file = fs::File::open(&path).expect("what was written is there");
    let statements = coracle_verify::signature::statements(&file, image.len() as u64).expect("the image is good");
    fs::remove_file(&path).expect("what was made can be removed");
    let text = &statements.first().expect("the image has a group").text;
    let message = CleartextSignedMessage::sign(StdRng::seed_from_u64(2), text, &key.primary_key, &Password::empty());
    let message =
        message.expect("a text can be signed").to_armored_bytes(ArmorOptions::default()).expect("it can be written");
    let length = u16::try_from(public.len()).expect("a key is short").to_le_bytes();
    let input = [key.fingerprint().as_bytes(), &length, public.as_bytes(), &message].concat();
    put(corpus, "signature", "openpgp", &input);
    let envelope = br#"{"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":"e30=","signatures":[{"keyid":"","sig":"AAAA"}]}"#;
    let length = u16::try_from(pem.len()).expect("a key is short").to_le_bytes();
    put(corpus, "signature", "dsse", &[&[0; 20][..], &length, pem.as_bytes(), envelope].concat());
}

fn put(corpus: &Path, target: &str, name: &str, bytes: &[u8]) {
    let directory = corpus.join(target);
    fs::create_dir_all(&directory).expect("a directory can be made");
    fs::write(directory.join(name), bytes).expect("a seed can be written");
}

fn run(program: &str, paths: &[&PathBuf], options: &[&str]) {
    let mut command = Command::new(program);
    // mkfs.erofs wants its options first, mksquashfs last.
    if program == "mkfs.erofs" {
        command.args(options).args(paths)
    } else {
        command.args(paths).args(options)
    };
    finish(program, &mut command);
}

fn finish(program: &str, command: &mut Command) {
    let status = command.stdout(std::process::Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program}: not there, or it failed");
}
