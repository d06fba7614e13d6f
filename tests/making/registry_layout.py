"""registry_layout.py [--config FILE] LAYOUT TAG PLATFORM:DIRECTORY[,DIRECTORY...]...

Writes an OCI image layout (image-spec, image-layout.md): an image whose layers are those directories, or with several
platforms an index of such images. A platform is an architecture, or an architecture/variant; with a ? in front, an index
does not say it. What a container runs with is in the FILE, if there is one: {"Env": [...], "Cmd": [...], ...}."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

OCI = "application/vnd.oci.image."
RUNNING = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}


def put(layout, data):
    digest = hashlib.sha256(data).hexdigest()
    directory = os.path.join(layout, "blobs", "sha256")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, digest), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def root(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def image(layout, platform, directories, running):
    architecture, _, variant = platform.lstrip("?").partition("/")
    layers, diff_ids = [], []
    for directory in directories:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(os.listdir(directory)):
                tar.add(os.path.join(directory, name), name, filter=root)
        data = packed.getvalue()
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        layers.append({"mediaType": OCI + "layer.v1.tar+gzip", **put(layout, gzip.compress(data, 1, mtime=0))})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": running,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + "manifest.v1+json",
        "config": {"mediaType": OCI + "config.v1+json", **put(layout, json.dumps(config).encode())},
        "layers": layers,
    }
    found = {"mediaType": OCI + "manifest.v1+json", **put(layout, json.dumps(manifest).encode())}
    if platform.startswith("?"):
        return found
    named = {"os": "linux", "architecture": architecture}
    if variant:
        named["variant"] = variant
    return {**found, "platform": named}


def main():
    words, running = sys.argv[1:], RUNNING
    if words[0] == "--config":
        with open(words[1]) as file:
            running = json.load(file)
        words = words[2:]
    layout, tag, images = words[0], words[1], words[2:]
    made = []
    for text in images:
        platform, _, directories = text.partition(":")
        made.append(image(layout, platform, directories.split(","), running))
    if len(made) == 1 and "platform" in made[0]:
        top = made[0]
    else:
        index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": made}
        top = {"mediaType": OCI + "index.v1+json", **put(layout, json.dumps(index).encode())}
    top["annotations"] = {"org.opencontainers.image.ref.name": tag}
    with open(os.path.join(layout, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(layout, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [top]}, file)


main()
