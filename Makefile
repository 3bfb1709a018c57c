# cleat: see README.md. `make` lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:

PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X github.com/cleatproject/cleat/internal/version.version=$(VERSION)
GOBUILD  = CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
BINARIES = cleat cleatd containerd-shim-cleat-v2
# Completion scripts: shell, and file below share/.
COMPLETIONS = bash:bash-completion/completions/cleat zsh:zsh/site-functions/_cleat fish:fish/vendor_completions.d/cleat.fish
# Debian packages: what the product runs with, what generates, and what tests use as peers.
PACKAGES = gcc libc6-dev runc protobuf-compiler busybox-static skopeo umoci docker-registry containerd docker.io iproute2 btrfs-progs xfsprogs e2fsprogs erofs-utils isal zstd buildah debootstrap user-mode-linux runsc zsh fish

.PHONY: help deps build generate man check-generated lint test test-unit test-integration run bench bench-peer2 install uninstall clean fuzz

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what is missing of Debian's packages (as root)
	@./scripts/deps.sh $(PACKAGES)
	@./scripts/guest.sh

build: ## Build static binaries into bin/
	@mkdir -p bin
	@for b in $(BINARIES); do $(GOBUILD) -o bin/$$b ./cmd/$$b || exit 1; done

generate: ## Generate the messages, the records and the pages under docs/cli/
	./proto/generate.sh
	./client/internal/wire/generate.sh
	./metadata/internal/records/generate.sh
	rm -f docs/cli/*.md
	go run -tags docgen ./cmd/cleat markdown docs/cli

man: ## Generate man pages into bin/man/
	@rm -rf bin/man && mkdir -p bin/man
	@go run -tags docgen -ldflags '$(LDFLAGS)' ./cmd/cleat man bin/man

check-generated: ## Fail if generated files differ from what generate makes
	@./scripts/check-generated.sh

lint: check-generated ## Drift of generated files, golangci-lint, rules of the repository
	@./scripts/lint.sh

test: deps build lint test-unit test-integration ## Every test

test-unit: ## Unit tests with the race detector
	go test -race -timeout 25m ./...

test-integration: build ## Real daemon, shim, runc and peers
	./scripts/test-integration.sh

fuzz: ## Run every fuzz target for FUZZTIME (default 30s) each
	@./scripts/fuzz.sh $${FUZZTIME:-30s}

run: deps build ## The main job, shown step by step
	@./scripts/demo.sh

bench: deps build ## Measure beside runc and the peers; table, and JSON in bench/results/
	cd bench && go run . -bin ../bin

bench-peer2: deps build ## The same beside containerd 2.3, built from its published module
	mkdir -p bench/results/peer2
	cd bench/peer2 && CGO_ENABLED=0 go build -trimpath -tags 'no_btrfs no_cri no_devmapper no_zfs' -o ../results/peer2/ \
		$$(sed -n 's,^\t_ "\(.*\)"$$,\1,p' tools.go)
	cd bench && go run . -bin ../bin -peer results/peer2

install: build man ## Install into $(DESTDIR)$(PREFIX), with man pages and shell completion
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/man/man1
	for b in $(BINARIES); do install -m 0755 bin/$$b $(DESTDIR)$(PREFIX)/bin/$$b; done
	sed 's,@BINDIR@,$(PREFIX)/bin,' contrib/cleatd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/cleatd.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/cleatd.service
	install -m 0644 bin/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	for c in $(COMPLETIONS); do \
		install -d $(DESTDIR)$(PREFIX)/share/$$(dirname $${c#*:}) && \
		bin/cleat completion $${c%%:*} > $(DESTDIR)$(PREFIX)/share/$${c#*:} || exit 1; \
	done

uninstall: ## Remove what install installed
	for b in $(BINARIES); do rm -f $(DESTDIR)$(PREFIX)/bin/$$b; done
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/cleatd.service
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/cleat.1 $(DESTDIR)$(PREFIX)/share/man/man1/cleat-*.1
	for c in $(COMPLETIONS); do rm -f $(DESTDIR)$(PREFIX)/share/$${c#*:}; done

clean: ## Remove what was built
	rm -rf bin bench/results
