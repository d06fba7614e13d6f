# shellcheck shell=sh
# CORACLE_ALLOWED_DIR: where the images are that the user has put into the store (coracle cp), for scripts that name them
# by path. Sourced by login shells.
if CORACLE_ALLOWED_DIR=$(coracle ls --folder 2>/dev/null); then
	export CORACLE_ALLOWED_DIR
else
	unset CORACLE_ALLOWED_DIR
fi
