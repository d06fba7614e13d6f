# The one door. `make help` lists what there is.
PREFIX     ?= /usr
SYSCONFDIR ?= /etc
DESTDIR    ?=
CARGO      ?= cargo
BUILD      := target/release

.PHONY: help build install

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

build: ## the plugin and the launcher, in target/release
	$(CARGO) build --release --locked --package coracle-launcher
	$(CARGO) build --release --locked --package spank_coracle

install: build ## put everything in place: DESTDIR= PREFIX=/usr SYSCONFDIR=/etc
	install -D -m 0755 $(BUILD)/coracle $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 0755 $(BUILD)/libspank_coracle.so $(DESTDIR)$(PREFIX)/lib/coracle/spank_coracle.so
	install -D -m 0644 slurm-conf-examples/plugstack.conf.d/coracle.conf \
		$(DESTDIR)$(SYSCONFDIR)/slurm/plugstack.conf.d/coracle.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/coracle/coracle.yaml || \
		install -D -m 0644 slurm-conf-examples/coracle.yaml $(DESTDIR)$(SYSCONFDIR)/coracle/coracle.yaml
