# Which images may run: digests and the site's policy.
load support

hash_of() { # FILE
	sha256sum "$1" | cut -d' ' -f1
}

ZEROS=0000000000000000000000000000000000000000000000000000000000000000

@test "an image with the right digest runs, and the task knows it" {
	local hash
	hash=$(hash_of "$busybox")
	good srun -n1 --container="$busybox" --container-digest="sha256:$hash" sh -c 'cat /etc/image-only; echo $CORACLE_DIGEST'
	prints "$MARK"$'\n'"sha256:$hash"
	good srun -n1 --container="$busybox@sha256:$hash" sh -c 'cat /etc/image-only; echo $CORACLE_DIGEST'
	prints "$MARK"$'\n'"sha256:$hash"
	good srun -n1 --container="$busybox@sha256:${hash^^}" cat /etc/image-only
	prints "$MARK"
	good env CORACLE_CONTAINER_DIGEST="sha256:$hash" srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
}

@test "without a digest asked for none is in the environment" {
	good env CORACLE_DIGEST=sha256:forged CORACLE_IMAGE=/forged srun -n1 --container="$busybox" sh -c 'cat /etc/image-only; echo "<$CORACLE_DIGEST> $CORACLE_IMAGE"'
	prints "$MARK"$'\n'"<> $busybox"
}

@test "an image with another digest is refused, and both are named" {
	local found
	found=$(hash_of "$busybox")
	at=node refused digest "its digest is sha256:$found, sha256:$ZEROS was asked for" \
		srun -n2 --container="$busybox" --container-digest="sha256:$ZEROS" true
	at=node refused digest "sha256:$ZEROS was asked for" srun -n2 --container="$busybox@sha256:$ZEROS" true
	at=node refused digest "sha256:$ZEROS was asked for" env CORACLE_CONTAINER_DIGEST="sha256:$ZEROS" srun -n2 --container="$busybox" true
}

@test "one changed byte is another digest" {
	local hash
	hash=$(hash_of "$busybox")
	patched "$busybox" changed.sif 48 'x'
	chmod 644 changed.sif
	refused digest "sha256:$hash was asked for" srun -n1 --container="$dir/changed.sif" --container-digest="sha256:$hash" true
}

@test "what is no digest is refused before the job queues" {
	local digest
	for digest in x sha256: sha256:0 "sha256:${ZEROS}0" "sha256:${ZEROS:1}g" "sha512:$ZEROS" "$ZEROS" "sha256:${ZEROS:2}ü"; do
		at=submit refused usage "not a digest: sha256: and 64 hexadecimal digits are wanted" \
			srun -n1 --container="$busybox" --container-digest="$digest" true || return
	done
	at=submit refused usage 'not a digest' srun -n1 --container="$busybox@sha256:12" true
}

@test "two digests that differ are refused" {
	at=submit refused usage 'the digest behind @ and the one of --container-digest differ' \
		srun -n1 --container="$busybox@sha256:$(hash_of "$busybox")" --container-digest="sha256:$ZEROS" true
}

@test "user_images unset: a user's image is refused, and the key is named" {
	configure 'version: 1'
	at=node refused policy "$busybox: in none of the site's image_paths, and user_images is not set in coracle.yaml" \
		srun -n2 --container="$busybox" true
}

@test "user_images deny: a user's image is refused, and the key is named" {
	configure $'version: 1\nuser_images: deny'
	at=node refused policy "$busybox: the site runs only images from its image_paths (user_images: deny)" \
		srun -n2 --container="$busybox" true
}

only_trusted() {
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images\nbinds:\n- source: /scratch'
	install -d /opt/images/sub
	install -m 644 "$busybox" /opt/images/good.sif
}

cleanup() {
	rm -rf /opt/images /opt/images2
}

DENIED='the site runs only images from its image_paths (user_images: deny)'

@test "a root-owned image below an image path runs, also in a directory there and by a link from elsewhere" {
	only_trusted
	install -m 644 "$busybox" /opt/images/sub/deep.sif
	ln -s /opt/images/good.sif link.sif
	local image
	for image in /opt/images/good.sif /opt/images/sub/deep.sif /opt/images/sub/../good.sif //opt//images/good.sif "$dir/link.sif"; do
		good srun -n1 --container="$image" cat /etc/image-only
		prints "$MARK"
	done
}

@test "a directory whose name begins like an image path is none" {
	only_trusted
	install -d /opt/images2
	install -m 644 "$busybox" /opt/images2/x.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images2/x.sif true
	refused policy "$DENIED" srun -n1 --container=/opt/images/../images2/x.sif true
}

@test "an image below an image path that is a user's own, or that others may write, is not trusted" {
	only_trusted
	install -o alice -m 644 "$busybox" /opt/images/alices.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/alices.sif true
	install -m 664 "$busybox" /opt/images/group.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/group.sif true
	install -m 646 "$busybox" /opt/images/world.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/world.sif true
}

@test "a link below an image path to an image elsewhere is not trusted" {
	only_trusted
	install -m 644 "$busybox" roots.sif
	ln -s "$dir/roots.sif" /opt/images/link.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/link.sif true
	install -d /opt/images2
	install -m 644 "$busybox" /opt/images2/x.sif
	ln -s /opt/images2 /opt/images/directory
	refused policy "$DENIED" srun -n1 --container=/opt/images/directory/x.sif true
}

@test "a trusted image that is bound to another place of the node is not found below the path" {
	only_trusted
	touch bound.sif
	mount --bind /opt/images/good.sif bound.sif
	run alice srun -n1 --container="$dir/bound.sif" cat /etc/image-only
	umount bound.sif
	((status == 125)) && said policy "$DENIED"
}

@test "a user's image that is hard-linked below an image path is still the user's" {
	only_trusted
	install -d /opt/images2
	install -o alice -m 644 "$busybox" /opt/images2/alices.sif
	ln /opt/images2/alices.sif /opt/images/hard.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/hard.sif true
}

@test "the owner of an image path may be a service's account, by name or number" {
	only_trusted
	install -o bob -m 644 "$busybox" /opt/images/bobs.sif
	refused policy "$DENIED" srun -n1 --container=/opt/images/bobs.sif true
	local owner
	for owner in bob 2002; do
		configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /opt/images\n  owner: '"$owner"$'\nbinds:\n- source: /scratch'
		good srun -n1 --container=/opt/images/bobs.sif cat /etc/image-only
		prints "$MARK"
		refused policy "$DENIED" srun -n1 --container=/opt/images/good.sif true
	done
}

@test "an image path that the node lacks trusts nothing" {
	configure $'version: 1\nuser_images: deny\nimage_paths:\n- path: /no/such'
	refused policy "$DENIED" srun -n1 --container="$busybox" true
}
