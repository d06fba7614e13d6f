"""layers.py WHAT OUT [ARGUMENT...]: archives for the tests of layers. Run it without arguments for the list."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

TREE = os.environ.get("CORACLE_IMAGES", ".") + "/tree"
# struct vfs_cap_data of linux/capability.h, version 2: CAP_NET_BIND_SERVICE, permitted and effective.
BIND_PORTS = "\x01\0\0\x02\0\x04\0\0" + "\0" * 12
DIRECTORY, LINK, SYMLINK = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def entry(name, kind=tarfile.REGTYPE, data=b"", link="", device=(0, 0), pax=None, **fields):
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(data), link
    made.devmajor, made.devminor = device
    made.mode, made.mtime, made.pax_headers = 0o644, 1600000000, pax or {}
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


def directory(name, mode=0o755, **fields):
    return entry(name, DIRECTORY, mode=mode, **fields)


def tar(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for made, data in entries:
            archive.addfile(made, io.BytesIO(data))
    return out.getvalue()


def lower():
    """Whatever may be in a layer: owners, modes, devices, names, times, attributes."""
    with open(TREE + "/bin/busybox", "rb") as file:
        busybox = file.read()
    names = ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "usr", "usr/lib"]
    return [directory(".", mode=0o555)] + [directory(name) for name in names] + [
        entry("bin/busybox", data=busybox, mode=0o755),
        entry("bin/sh", SYMLINK, link="busybox"),
        entry("bin/cat", LINK, link="bin/busybox"),
        entry("bin/su", data=b"#", mode=0o4755),
        entry("bin/wall", data=b"#", mode=0o2755, gid=5),
        entry("lib", SYMLINK, link="/usr/lib"),
        entry("lib/moved", data=b"by a link", uid=33, gid=33),
        entry("etc/shadow", data=b"s", mode=0, gid=42),
        entry("etc/image-only", data=b"from a layer\n"),
        directory("var/setgid", mode=0o2775, gid=50),
        entry("var/setgid/file", uid=1000, gid=50),
        directory("closed", mode=0, uid=100),
        entry("closed/file", data=b"1", mode=0o400, uid=100),
        directory("read-only", mode=0o555),
        entry("read-only/file", mode=0o444),
        entry("dev/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
        entry("dev/disk", tarfile.BLKTYPE, mode=0o660, gid=6, device=(8, 300)),
        entry("pipe", tarfile.FIFOTYPE, uid=7),
        entry("far", uid=3000000, gid=70000, mtime=9999999999),
        entry("before", mtime=-5.5),
        entry("fraction", mtime=1600000000.75),
        entry("odd name\"'\\ \t", uid=5),
        entry("line\nbreak", uid=6, mode=0o4711),
        entry("not utf-8 \udcff\udcfe", uid=8),
        entry("link", SYMLINK, link="etc", uid=11, gid=12),
        entry("attribute", data=b"x", pax={"SCHILY.xattr.user.note": "hello\nthere"}),
        entry("made/on/the/way"),
        entry("gone/a"),
        entry("opaque/old"),
        entry("opaque/deeper/old"),
        entry("/absolute/name"),
        entry("a" * 90 + "/" + "b" * 200, data=b"long"),
    ]


def upper():
    """What is changed."""
    return [
        entry(".wh.gone"),
        entry("opaque/new"),
        entry("opaque/.wh..wh..opq"),
        entry("etc/shadow-", LINK, link="etc/shadow"),
        entry("lib/moved-too", uid=34),
        directory("far", mode=0o1777, uid=1),
        entry("dev/.wh.disk"),
        entry("dev/full", tarfile.CHRTYPE, mode=0o666, device=(1, 7)),
        entry("read-only/more"),
    ]


def words(text):
    """Entries by words: NAME/ is a directory, NAME>TARGET a symbolic link, NAME=TEXT a file, NAME@ a copy of busybox."""
    made = []
    for word in text.split():
        name = re.split("[=>@]", word)[0]
        if word.endswith("@"):
            with open(TREE + "/bin/busybox", "rb") as file:
                made.append(entry(name, data=file.read(), mode=0o755))
        elif word.endswith("/"):
            made.append(directory(name))
        elif ">" in word:
            made.append(entry(name, SYMLINK, link=word.partition(">")[2]))
        else:
            made.append(entry(name, data=word.partition("=")[2].encode()))
    return made


def image(out, how, settings, *layers):
    """An OCI layout of layers by words, or EMPTY for a file without bytes, with further settings of its configuration."""
    layout(out, [b"" if text == "EMPTY" else tar(words(text)) for text in layers], how, settings=json.loads(settings))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "padded":
        return gzip.compress(data, mtime=0) + bytes(10000)
    return subprocess.run([how, "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout if how else data


def descriptor(out, data, kind):
    os.makedirs(out + "/blobs/sha256", exist_ok=True)
    with open(f"{out}/blobs/sha256/{digest(data)}", "wb") as file:
        file.write(data)
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest(data), "size": len(data)}


def layout(out, layers, how="gzip", tag="one", ids=None, settings=None):
    """An image more in the OCI layout `out`."""
    kind = "layer.v1.tar" + ("+" + how.replace("padded", "gzip") if how else "")
    described = [descriptor(out, b"" if layer == b"" else compress(layer, how), kind) for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": ids or ["sha256:" + digest(layer) for layer in layers]}
    config.update(settings or {})
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": described}
    manifest["config"] = descriptor(out, json.dumps(config).encode(), "config.v1+json")
    made = descriptor(out, json.dumps(manifest).encode(), "manifest.v1+json")
    made["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "manifests": []}
    if os.path.exists(out + "/index.json"):
        with open(out + "/index.json", encoding="utf-8") as file:
            index = json.load(file)
    index["manifests"].append(made)
    for name, value in [("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})]:
        with open(f"{out}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file)


def docker(out, layers, config=None, more=()):
    """An archive with a manifest.json that says these layers."""
    config = config or json.dumps({"architecture": "amd64", "rootfs": {"diff_ids": ["sha256:" + "0" * 64] * len(layers)}})
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": layers}]).encode()
    entries = [entry("manifest.json", data=manifest), entry("c.json", data=config.encode()), *more]
    with open(out, "wb") as file:
        file.write(tar(entries))


def write(out, data):
    with open(out, "wb") as file:
        file.write(data)


def endless(out, length):
    """A gzip stream of a tar file with `length` files of 1 GiB zeros: one part of it again and again."""
    header = entry("zeros")[0]
    header.size = 1 << 30
    zeros = gzip.compress(bytes(1 << 26), mtime=0)
    write(out, (gzip.compress(header.tobuf(), mtime=0) + zeros * 16) * int(length))


WHAT = {
    "layout": lambda out, how="gzip", tag="one": layout(out, [tar(lower()), tar(upper())], how, tag),
    "image": image,
    "small": lambda out, text, tag: layout(out, [tar([directory("etc"), entry("etc/text", data=text.encode())])], "", tag),
    "wrong-layer": lambda out: layout(out, [tar(lower()), tar(upper())], ids=["sha256:" + digest(tar(lower())), "sha256:" + "1" * 64]),
    "capability": lambda out: layout(out, [tar([entry("bin", data=b"#", mode=0o755, pax={"SCHILY.xattr.security.capability": BIND_PORTS})])]),
    "tar": lambda out: write(out, tar(lower())),
    "docker": lambda out, *layers: docker(out, list(layers)),
    "docker-link": lambda out, target: docker(out, ["l/layer.tar"], more=[entry("l/layer.tar", SYMLINK, link=target)]),
    "docker-huge": lambda out: docker(out, ["l"], config=" " * (5 << 20)),
    "docker-twice": lambda out: docker(out, ["l"], more=[entry("l"), entry("l")]),
    "link-out": lambda out, target: write(out, tar([entry("l", SYMLINK, link=target), entry("l/canary", data=b"changed")])),
    "hard-link-out": lambda out, target: write(out, tar([entry("l", LINK, link=target)])),
    "up": lambda out: write(out, tar([entry("a/../../../../canary", data=b"changed")])),
    "endless": endless,
}

if len(sys.argv) < 3:
    sys.exit(__doc__ + " ".join(WHAT))
WHAT[sys.argv[1]](*sys.argv[2:])
