# The one door. `make help` lists what there is.
PREFIX     ?= /usr
LIBDIR     ?= $(PREFIX)/lib
SYSCONFDIR ?= /etc
DESTDIR    ?=
CARGO      ?= cargo
RUSTC      ?= rustc
# What `build` leaves and `place` installs; `dist` has others.
PROGRAMS   := target/release
PLUGINS    := target/plugin
# What tests install, and the images they run.
STAGE      := target/stage
IMAGES     := target/images
STAGED     := DESTDIR=$(CURDIR)/$(STAGE) PREFIX=/usr LIBDIR=/usr/lib SYSCONFDIR=/etc
# What `make check` needs besides the packages of tests/deps.
TOOLS      := target/tools
DENY       := 0.20.2
# The parts of `make test`, in this order.
PARTS      := check unit making slurm test-releases test-kernel verify-agreement referee
SITE       := slurm-conf-examples
DIST       := target/dist

# The programs find each other and their configuration in other places than the usual ones, too.
ifneq ($(SYSCONFDIR),/etc)
export CORACLE_CONFIG := $(SYSCONFDIR)/coracle/coracle.yaml
export CORACLE_KEYS := $(SYSCONFDIR)/coracle/keys
endif
ifneq ($(LIBDIR),$(PREFIX)/lib)
export CORACLE_LIBDIR := $(patsubst $(PREFIX)/%,%,$(LIBDIR))
endif
# The plugin's own defaults are those of /usr and /etc: its line says what differs.
ARGUMENTS := $(if $(filter-out /usr/lib,$(LIBDIR)),launcher=$(LIBDIR)/coracle/coracle-launcher) \
	$(if $(filter-out /etc,$(SYSCONFDIR)),config=$(SYSCONFDIR)/coracle/coracle.yaml)

.PHONY: help deps build manual install place place-manual dist deb rpm images demo-images stage demo cluster \
	check fmt clippy rustdoc deny scripts unit elsewhere variant panic making slurm \
	test test-all test-kernel test-releases test-slurm-matrix verify-agreement referee \
	fuzz fuzz-check mutants bench bench-packing bench-mpi clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

deps: ## install what building and testing needs (the only target that installs; Debian 12 or Ubuntu, as root)
	tests/deps

build: ## the plugin, the launcher and what runs inside of images
	$(CARGO) build --locked --release $(foreach program,cli launcher verify images,--package coracle-$(program)) --bins
	$(CARGO) rustc --locked --profile plugin --package coracle-inside --bin coracle-inside -- \
		-C target-feature=+crt-static
	$(CARGO) build --locked --profile plugin --package spank_coracle --package spank_coracle_facts

# With the development profile, whose dependencies `make unit` builds, too.
manual: ## man pages and completions, in target/manual
	rm -rf target/manual
	$(CARGO) run --locked --package coracle-cli --features manual -- manual target/manual

install: build manual place place-manual ## put everything in place: DESTDIR= PREFIX=/usr LIBDIR=PREFIX/lib SYSCONFDIR=/etc

place:
	install -D -m 0755 $(PROGRAMS)/coracle $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 0755 $(PLUGINS)/libspank_coracle.so $(DESTDIR)$(LIBDIR)/coracle/spank_coracle.so
	install -D -m 0755 $(PLUGINS)/libspank_coracle_facts.so $(DESTDIR)$(LIBDIR)/coracle/spank_coracle_facts.so
	install -D -m 0755 $(PLUGINS)/coracle-inside $(DESTDIR)$(LIBDIR)/coracle/coracle-inside
	install -D -m 0755 -t $(DESTDIR)$(LIBDIR)/coracle $(foreach program,launcher verify images,$(PROGRAMS)/coracle-$(program))
	install -d -m 0755 $(DESTDIR)$(SYSCONFDIR)/slurm/plugstack.conf.d $(DESTDIR)$(SYSCONFDIR)/coracle
	sed -E -e 's#/usr/lib/coracle#$(LIBDIR)/coracle#' -e '/^#?required /s#$$# $(strip $(ARGUMENTS))#' -e 's# +$$##' \
		$(SITE)/plugstack.conf.d/coracle.conf > $(DESTDIR)$(SYSCONFDIR)/slurm/plugstack.conf.d/coracle.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/coracle/coracle.yaml || \
		install -m 0644 packaging/coracle.yaml $(DESTDIR)$(SYSCONFDIR)/coracle/coracle.yaml
	cd $(SITE) && find . -type f -exec sh -c 'install -D -m $$(stat -c %a "$$1") "$$1" "$$2/$$1"' - {} $(DESTDIR)$(PREFIX)/share/doc/coracle/$(SITE) \;
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system packaging/systemd/coracle-store.socket
	install -d -m 0755 $(DESTDIR)$(SYSCONFDIR)/coracle/keys
	sed -e 's#/usr/bin#$(PREFIX)/bin#' packaging/systemd/coracle-store.service \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/coracle-store.service
	install -D -m 0644 packaging/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/coracle.conf
	install -D -m 0644 packaging/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/coracle.conf
	install -d -m 0755 $(DESTDIR)/var/lib/coracle
	install -d -m 0711 $(DESTDIR)/var/lib/coracle/records
	install -D -m 0644 packaging/profile.sh $(DESTDIR)$(SYSCONFDIR)/profile.d/coracle.sh

place-manual:
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 target/manual/man/man1/*
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man5 target/manual/man/man5/*
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man7 target/manual/man/man7/*
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		target/manual/bash-completion/completions/coracle
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions target/manual/zsh/site-functions/_coracle
	install -D -m 0644 -t $(DESTDIR)$(SYSCONFDIR)/bash_completion.d target/manual/bash_completion.d/slurm_coracle

dist: manual ## files for all releases of Slurm and glibc 2.28 or newer, in target/dist/root: ARCH=aarch64 (takes zig from PyPI)
	packaging/build-portable target/zig
	rm -rf $(DIST)/root
	$(MAKE) place place-manual DESTDIR=$(CURDIR)/$(DIST)/root PROGRAMS=target/zig/release PLUGINS=target/zig/plugin
	tests/check-plugin --portable $(DIST)/root$(LIBDIR)/coracle/spank_coracle.so $(DIST)/root$(LIBDIR)/coracle/spank_coracle_facts.so

deb: dist ## Debian packages, in target/dist
	packaging/make-packages deb $(DIST)/root $(DIST)

rpm: dist ## RPM packages, in target/dist
	packaging/make-packages rpm $(DIST)/root $(DIST)

stage: images
	rm -rf $(STAGE)
	tests/timed stage $(MAKE) install $(STAGED)

# What the demo has no use for, and takes minutes: images of other releases of Debian, and programs that only tests run.
images: demo-images
	tests/timed mpi-images tests/images/make-mpi-images $(IMAGES) target/mksif
	tests/timed examples $(CARGO) build --locked --package coracle --package coracle-launcher --package coracle-verify \
		--example crafted --example verity --example confine
	rm -rf $(IMAGES)/crafted
	target/debug/examples/crafted $(IMAGES)/crafted
	install target/debug/examples/verity $(IMAGES)/verity
	install target/debug/examples/confine $(IMAGES)/confine

demo-images: target/mksif
	tests/timed images tests/images/make-images $(IMAGES) target/mksif

# One file and the standard library: no crate is compiled for it.
target/mksif: tests/images/mksif.rs tests/images/sif_writer.rs
	mkdir -p target
	$(RUSTC) --edition 2024 -O -o $@ $<

# Without man pages and completions, for which the launcher is compiled once more.
demo: demo-images ## a three-node Slurm on this machine, and the main job on it, command by command (root)
	rm -rf $(STAGE)
	tests/timed build $(MAKE) build place $(STAGED)
	tests/demo $(STAGE) $(IMAGES)

cluster: stage ## a shell in a throwaway three-node Slurm with Coracle installed (root)
	tests/cluster/cluster -i $(STAGE)

check: ## formatting, lints, documentation, dependencies, and the scripts (takes ruff from PyPI)
	@tests/timed check $(MAKE) --no-print-directory fmt clippy rustdoc deny scripts

fmt:
	$(CARGO) fmt --all --check

clippy:
	tests/timed clippy $(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	tests/timed fuzz-check $(MAKE) --no-print-directory fuzz-check

# The targets of a workspace of its own, so that they do not rot. libFuzzer, which is C++, is named and not compiled.
fuzz-check: export CUSTOM_LIBFUZZER_PATH := /usr/lib/libFuzzer.a
fuzz-check: export CARGO_TARGET_DIR := $(CURDIR)/target
fuzz-check:
	$(CARGO) check --locked --quiet --manifest-path fuzz/Cargo.toml --bins

rustdoc: export RUSTDOCFLAGS := -D warnings
rustdoc:
	for package in coracle spank_coracle spank_coracle_facts coracle-launcher coracle-verify coracle-cli coracle-images coracle-inside coracle-orders; do \
		$(CARGO) doc --locked --quiet --no-deps --all-features --package $$package || exit 1; done

# Compiling cargo-deny takes minutes.
deny:
	$(CARGO) deny --version >/dev/null 2>&1 || test -x $(TOOLS)/bin/cargo-deny || \
		$(CARGO) install --locked --root $(TOOLS) --version $(DENY) cargo-deny
	PATH="$$PATH:$(CURDIR)/$(TOOLS)/bin" $(CARGO) deny --workspace --log-level error check bans licenses sources

scripts: $(TOOLS)/ruff/bin/ruff
	tests/timed shellcheck tests/lint shellcheck
	tests/lint ruff $<

$(TOOLS)/ruff/bin/ruff: tests/ruff.txt
	rm -rf $(TOOLS)/ruff
	python3 -m venv $(TOOLS)/ruff
	$(TOOLS)/ruff/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $<
	touch $@

unit: ## what needs no Slurm
	tests/timed unit $(CARGO) test --locked --workspace --features coracle-cli/manual

# Another version, in another place: requests and messages of another form (the feature `variant`), and the paths of ELSEWHERE.
# The development profile has all dependencies by then, and the feature keeps what others build as it is.
ELSEWHERE := PREFIX=/opt/coracle SYSCONFDIR=/opt/coracle/etc
elsewhere: stage
	rm -rf $(IMAGES)/elsewhere target/variant
	tests/timed elsewhere $(MAKE) variant place place-manual DESTDIR=$(CURDIR)/$(IMAGES)/elsewhere $(ELSEWHERE) PROGRAMS=target/variant PLUGINS=target/variant

variant:
	$(CARGO) build --locked --package coracle-launcher --package coracle-verify --package coracle-cli --bins --features variant
	$(CARGO) build --locked --package spank_coracle --features variant
	install -D -t target/variant target/debug/coracle target/debug/coracle-launcher target/debug/coracle-verify \
		target/debug/libspank_coracle.so target/release/coracle-images \
		target/plugin/libspank_coracle_facts.so target/plugin/coracle-inside

making: stage ## what makes images: sources, registries, definition files (root)
	tests/timed making tests/making/run $(STAGE) $(IMAGES)

panic: stage
	$(CARGO) build --locked --package spank_coracle --features inject-panic
	install -D target/debug/libspank_coracle.so $(IMAGES)/panic/spank_coracle.so

slurm: elsewhere panic ## behaviour on a real three-node Slurm (root)
	tests/check-plugin $(STAGE)/usr/lib/coracle/spank_coracle.so $(STAGE)/usr/lib/coracle/spank_coracle_facts.so
	tests/timed slurm tests/slurm/run $(STAGE) $(IMAGES)

test: ## everything, and how long each part takes
	@tests/timed --table $(MAKE) --no-print-directory $(PARTS)

test-all: ## everything, and every release of Slurm that can be had (an hour more)
	@tests/timed --table $(MAKE) --no-print-directory $(PARTS) test-slurm-matrix

test-kernel: stage ## the mounts on Debian's 6.1 kernel, under qemu
	tests/timed test-kernel tests/kernel/run $(IMAGES) $(STAGE)

# Trees of other releases are made once, in target/trees. What is installed in them are the files for all releases.
RELEASES ?= here bullseye trixie sid
test-slurm-matrix: dist images ## behaviour on other releases of Slurm, and docs/releases.md: RELEASES="here bullseye trixie sid" (root)
	tests/timed test-slurm-matrix tests/slurm/matrix $(DIST)/root $(IMAGES) $(RELEASES)

test-releases: stage ## on other releases of Slurm, the tests with the tag releases (root)
	tests/timed test-releases tests/slurm/matrix --tagged $(STAGE) $(IMAGES) trixie sid

verify-agreement: stage ## `coracle verify` beside `apptainer verify`, over signed images made for that (needs Debian's mirror)
	tests/timed verify-agreement tests/apptainer/run target/apptainer $(STAGE)/usr/bin/coracle

referee: stage ## images between `coracle` and `apptainer`, both ways (needs Debian's mirror; root)
	tests/timed referee tests/apptainer/referee target/apptainer $(STAGE) $(IMAGES)

bench: stage ## start-up times, interleaved with bare srun (root; minutes)
	benches/start $(STAGE) $(IMAGES)
	benches/store $(STAGE) $(IMAGES)

bench-packing: stage ## which compressor and block size run fastest (root; minutes)
	benches/packing $(STAGE)

bench-mpi: stage ## MPI in a container beside native, and what a file server is asked for an import (root; half an hour)
	benches/mpi $(STAGE) $(IMAGES)
	benches/import-storm $(STAGE) $(IMAGES)

# All files of fuzz/targets; fuzz/README.md lists what each of them reads. RUSTC_BOOTSTRAP: cargo-fuzz wants options of
# the compiler that only it lets a stable one have.
T       ?= $(sort $(basename $(notdir $(wildcard fuzz/targets/*.rs))))
SECONDS ?= 60
FUZZ     = fuzz/target/$(shell $(RUSTC) -vV | sed -n 's/^host: //p')/release
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: ## feed the parsers nonsense: T=sif_header SECONDS=60 (needs `cargo install cargo-fuzz`)
	for target in seeds $(T); do $(CARGO) fuzz build --fuzz-dir fuzz "$$target" || exit 1; done
	$(FUZZ)/seeds fuzz/corpus
	for target in $(T); do \
		$(CARGO) fuzz run --fuzz-dir fuzz "$$target" -- -max_total_time=$(SECONDS) -rss_limit_mb=512 -timeout=10 \
			-max_len=65536 -print_final_stats=1 || exit 1; done

# Only the tests of the library run: they decide what the parsers of options, requests and messages accept. Debug
# information takes a third of the time.
mutants: export CARGO_PROFILE_DEV_DEBUG := none
mutants: ## change the parsers of options and requests in one place at a time: a test must fail (needs `cargo install cargo-mutants`; an hour)
	$(CARGO) mutants --package coracle --file 'src/request/**' --file 'src/options*' --file 'src/options/**' \
		--file src/wire.rs --timeout 60 --cargo-arg=--lib --output target

clean: ## remove what was built
	$(CARGO) clean
