# Files that only root may read in an image are the user's in the container.
bats_require_minimum_version 1.5.0
load support

# The kernel maps owners of a squashfs (Linux 6.2).
needs_map() {
	local major minor
	IFS=. read -r major minor _ < <(uname -r)
	((major > 6 || major == 6 && minor >= 2)) || skip "Linux $major.$minor does not map owners of a squashfs"
}

# An image with files of root, alice and bob that only their owners may read.
closed_image() { # NAME OWNER-OF-THE-TOP
	cp -a "$IMG/tree" "$dir/made"
	mkdir -m 700 "$dir/made/closed"
	cp "$dir/made/bin/busybox" "$dir/made/closed/cat"
	for name in roots alices bobs; do echo "$name" >"$dir/made/$name"; done
	# Something of everybody's, to tell the view of the owner from the right to read.
	echo open >"$dir/made/open"
	chmod 700 "$dir/made/closed/cat"
	chmod 600 "$dir/made/roots" "$dir/made/alices" "$dir/made/bobs"
	chown alice:alice "$dir/made/alices"
	chown bob:bob "$dir/made/bobs"
	chown "$2" "$dir/made"
	mksquashfs "$dir/made" "$dir/$1" -noappend -quiet -no-progress >/dev/null
	rm -rf "$dir/made"
	chmod 644 "$dir/$1"
}

# Owners as numbers, and what can be read.
LOOK='for file in / /closed/cat /roots /alices /bobs /open; do echo "$file $(stat -c %u:%g $file 2>/dev/null || echo closed)"; done; for file in /roots /alices /bobs; do cat $file 2>/dev/null; done; true'
OF_ROOT=$'/closed/cat 2001:2001\n/roots 2001:2001\n/alices 0:0\n/bobs 2002:2002\n/open 2001:2001\nroots'

@test "files that only root may read are the user's, and nothing can be written" {
	needs_map
	closed_image closed.sqsh root
	local before
	before=$(sha256sum closed.sqsh)
	good srun -n1 --container=closed.sqsh /closed/cat /roots
	prints roots
	good srun -n2 -N2 --ntasks-per-node=1 --container=closed.sqsh /closed/cat /roots
	prints $'roots\nroots'
	job_script job.sh '/closed/cat /roots'
	batch --container=closed.sqsh job.sh
	prints roots
	good srun -n1 --container=closed.sqsh sh -c "$LOOK"
	[[ $(tail -n +2 <<<"$output") == "$OF_ROOT" ]] || fail "$output"
	good srun -n1 --container=closed.sqsh sh -c '(echo x >>/roots) 2>&1; (rm /roots) 2>&1; (chmod 644 /roots) 2>&1; (touch /closed/new) 2>&1; grep " / " /proc/self/mounts'
	[[ $(grep -c 'Read-only file system' <<<"$output") == 4 ]] || fail "$output"
	[[ $output == *' ro,'* ]] || fail "$output"
	[[ $before == "$(sha256sum closed.sqsh)" ]]
}

@test "the same in a writable container and in a kept overlay, where they can be changed" {
	needs_map
	closed_image closed.sqsh root
	local option before
	before=$(sha256sum closed.sqsh)
	install -d -o alice kept
	for option in --container-writable=8m "--container-overlay=$dir/kept"; do
		good srun -n1 --container=closed.sqsh "$option" sh -c "$LOOK" || return
		[[ $(tail -n +2 <<<"$output") == "$OF_ROOT" ]] || { fail "$option" "$output"; return; }
		good srun -n1 --container=closed.sqsh "$option" sh -c 'echo more >>/roots; cat /roots; touch /closed/new && ls /closed' || return
		prints $'roots\nmore\ncat\nnew' || return
	done
	[[ $(stat -c %U kept/upper/roots) == alice ]]
	[[ $before == "$(sha256sum closed.sqsh)" ]]
}

@test "with every format, and with mount points that the image lacks" {
	needs_map
	local image
	for image in "$busybox" "$IMG/busybox-zstd.sqsh" "$IMG/overlays.sif"; do
		good srun -n1 --container="$image" stat -c %u:%g /etc /bin/busybox || { fail "$image"; return; }
		prints $'2001:2001\n2001:2001' || { fail "$image"; return; }
	done
	good srun -n1 --container="$IMG/busybox.erofs" stat -c %u:%g /etc/image-only
	prints 2001:2001
	good srun -n1 --container="$IMG/bare.sif" stat -c %u:%g /image-only
	prints 2001:2001
	# What is made for the container stays root's.
	good srun -n1 --container="$busybox" stat -c %u /etc/passwd /dev
	prints $'0\n0'
}

@test "an image whose top directory is the user's own keeps its owners" {
	closed_image own.sqsh alice
	local option before=$'/closed/cat closed\n/roots 0:0\n/alices 2001:2001\n/bobs 2002:2002\n/open 0:0\nalices'
	for option in --container-home --container-writable=8m; do
		good srun -n1 --container=own.sqsh "$option" sh -c "$LOOK" || return
		[[ $(tail -n +2 <<<"$output") == "$before" ]] || { fail "$option" "$output"; return; }
	done
	for option in --home --writable; do
		good coracle exec "$option" own.sqsh sh -c "$LOOK" || return
		has_line '/alices 2001:2001' && has_line alices || return
	done
}

@test "each user of an image sees root's files as their own, at the same time" {
	needs_map
	closed_image closed.sqsh root
	alice srun -n1 --container="$dir/closed.sqsh" sh -c "cat /roots; stat -c %u /roots /bobs; touch $dir/in; until test -e $dir/go; do /bin/sleep 0.1; done; cat /roots" >of-alice 3>&- &
	local step=$!
	eventually test -e in
	run as -d / bob srun -n1 --container="$dir/closed.sqsh" sh -c 'cat /roots; stat -c %u /roots /alices; cat /bobs 2>&1; true'
	touch go
	wait "$step"
	has $'roots\n2002\n2001\n'
	has "can't open '/bobs': Permission denied"
	[[ $(<of-alice) == $'roots\n2001\n2002\nroots' ]] || fail "$(<of-alice)"
}

@test "root's own steps see the owners of the image" {
	closed_image closed.sqsh root
	run srun -n1 --container=closed.sqsh sh -c "$LOOK"
	((status == 0)) || fail "$output"
	[[ $(tail -n +2 <<<"$output") == $'/closed/cat 0:0\n/roots 0:0\n/alices 2001:2001\n/bobs 2002:2002\n/open 0:0\nroots' ]] || fail "$output"
}

@test "set-user-id programs and devices of the image still do nothing" {
	needs_map
	good srun -n1 --container="$IMG/hostile.sqsh" sh -c 'ls -n /bin/busybox-as-root /bin/busybox-as-alice; for who in root alice; do /bin/busybox-as-$who grep -E "^(Uid|CapEff):" /proc/self/status; done; cat /devices/mem 2>&1; true'
	[[ $(grep -cx 'Uid:	2001	2001	2001	2001' <<<"$output") == 2 ]] || fail "$output"
	[[ $(grep -cx 'CapEff:	0000000000000000' <<<"$output") == 2 ]] || fail "$output"
	has "Permission denied"
}

@test "coracle exec: the same for a user without rights, and for whom root runs it" {
	closed_image closed.sqsh root
	local word
	for word in '' --writable; do
		good coracle exec $word closed.sqsh /closed/cat /roots || return
		prints roots || return
		good coracle exec $word closed.sqsh stat -c %u:%g /roots /closed /alices || return
		prints $'2001:2001\n2001:2001\n65534:65534' || return
	done
	good coracle exec --writable closed.sqsh sh -c 'echo more >>/roots && cat /roots'
	prints $'roots\nmore'
	good coracle exec closed.sqsh sh -c '(echo x >>/roots) 2>&1; cat /alices /bobs 2>&1; true'
	has 'Read-only file system'
	[[ $(grep -c 'Permission denied' <<<"$output") == 2 ]] || fail "$output"
	good coracle exec "$IMG/overlays.sif" stat -c %u /etc/topmost
	prints 2001
	good coracle exec "$IMG/bare.sif" stat -c %u /image-only
	prints 2001
	needs_map
	run coracle exec --user alice closed.sqsh /closed/cat /roots
	prints roots
}

@test "an image whose top directory only root may enter runs in a step and in coracle exec" {
	local option
	cp -a "$IMG/tree" made
	chmod 700 made
	for option in '' -all-root; do
		mksquashfs made "top$option.sqsh" -noappend -quiet -no-progress $option >/dev/null
		chmod 644 "top$option.sqsh"
		good srun -n1 --container="top$option.sqsh" cat /etc/image-only || return
		prints "$MARK" || return
		for word in '' --writable; do
			good coracle exec $word "top$option.sqsh" cat /etc/image-only || return
			prints "$MARK" || return
		done
	done
}

@test "an image whose top directory only somebody else may enter is refused by coracle exec, with the cause" {
	cp -a "$IMG/tree" made
	chmod 700 made
	chown bob made
	mksquashfs made bobs.sqsh -noappend -quiet -no-progress >/dev/null
	chmod 644 bobs.sqsh
	run alice coracle exec bobs.sqsh true
	((status == 125)) || fail "$output"
	[[ ${lines[0]} == 'coracle: bobs.sqsh: its top directory has mode 0700 and is not yours: permission denied [image-unreadable]' ]] || fail "$output"
	[[ ${lines[1]} == 'coracle: hint: '*chmod\ 755* ]] || fail "$output"
	good srun -n1 --container=bobs.sqsh true
}

@test "explain says whose root's files are" {
	closed_image closed.sqsh root
	closed_image own.sqsh alice
	needs_map
	good coracle explain --container=closed.sqsh
	has_line "owners  files of root are shown as the user's"
	has ' ro,nosuid,nodev,root-as-user'
	good coracle explain --json --container=closed.sqsh
	has '"owners":"root-as-user"'
	run coracle explain --user alice --container=closed.sqsh
	has_line "owners  files of root are shown as the user's"
	for words in '--user=alice --container=own.sqsh' '--user=root --container=closed.sqsh'; do
		# shellcheck disable=SC2086
		run coracle explain $words
		has_line 'owners  files are shown as those of their owners in the image' || return
		has_not root-as-user || return
	done
}

# A squashfuse_ll with the options of release 0.2.0, made of an older one: it ends unless it is asked for alice's files.
newer_squashfuse() {
	cat >newer.c <<-'C'
		#include <string.h>
		#include <unistd.h>
		const char usage[] = "    -o uid=N               set file owner to uid N\n";
		int main(int count, char **words) {
			int asked = 0;
			for (int i = 1; i < count; i++) {
				char *owners = strncmp(words[i], "-ooffset=", 9) ? NULL : strchr(words[i], ',');
				if (owners == NULL) continue;
				asked = !strcmp(owners, ",uid=2001,gid=2001");
				*owners = 0;
			}
			if (asked && usage[0]) execv("/usr/bin/squashfuse_ll", words);
			return 1;
		}
	C
	needs gcc || return
	PATH=/usr/bin:/bin gcc -O0 -o newer newer.c
	install -D -m 755 newer /opt/owners/squashfuse_ll
}

cleanup() {
	rm -rf /opt/owners
}

@test "squashfuse_ll that can is asked to show all files as the user's" {
	newer_squashfuse
	configure $'version: 1\nuser_images: fuse\nsquashfuse: /opt/owners/squashfuse_ll\nbinds:\n- source: /scratch'
	good srun -n1 --container="$busybox" cat /etc/image-only
	prints "$MARK"
	good coracle exec "$busybox" cat /etc/image-only
	prints "$MARK"
	good coracle explain --container="$busybox"
	has_line "owners  all files are shown as the user's"
	has ' ro,nosuid,nodev,all-as-user'
	# Others are not alice.
	run as -d / bob srun -n1 --container="$busybox" true
	has 'squashfuse_ll, which reads it as you, has ended'
}

@test "squashfuse_ll that cannot shows the owners of the image in a step" {
	! grep -q 'set file owner to uid' "$(type -P squashfuse_ll)" || skip 'this squashfuse_ll can'
	closed_image closed.sqsh root
	configure $'version: 1\nuser_images: fuse\nbinds:\n- source: /scratch'
	good srun -n1 --container=closed.sqsh sh -c "$LOOK"
	[[ $(tail -n +2 <<<"$output") == $'/closed/cat closed\n/roots 0:0\n/alices 2001:2001\n/bobs 2002:2002\n/open 0:0\nalices' ]] || fail "$output"
	good coracle explain --container=closed.sqsh
	has_line 'owners  files are shown as those of their owners in the image'
}
