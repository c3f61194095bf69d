# Every task of crmesh, the same on a laptop and in CI. Plain tools only: Go 1.26, Node 20, a C compiler, Chromium.
#
#   make build    bin/signal and bin/peer, with the page inside
#   make run      a signaling server and one replica with the sample database; prints an invite link (Ctrl-C stops)
#   make test     everything: lint, Go tests with the race detector, TypeScript tests, real Chromium
#   make race     the Go tests alone, with the race detector
#   make fuzz     every fuzz target for FUZZTIME (20s) each; then SCRIPTS (20000) random scripts on our cr-sqlite and on the
#                 original, and KILLS (200) kills of a process that writes
#   make sim      the simulations with SEEDS (20000) seeds
#   make bench    cr-sqlite in Go beside plain statements and the original, and sync between two replicas beside a bare data
#                 channel, COUNT (6) times; benchstat gives the medians
#   make lint     gofmt, go vet, staticcheck, biome, tsc
#   make web      the page into web/dist
#   make fmt      format Go and TypeScript
#   make sample   the sample database as SQL into .cache/sample
#   make clean    remove what was built, and the room of `make run`; web/node_modules stays
#
# Prerequisites are files: a target that is up to date costs nothing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# mattn/go-sqlite3 has virtual tables with this tag only: crsql_unpack_columns, clset, and crsql_changes in views and
# triggers of the schema. All else does without.
TAGS := -tags sqlite_vtable

FUZZTIME ?= 20s
SCRIPTS ?= 20000
KILLS ?= 200
SEEDS ?= 20000
COUNT ?= 6

# Assets and test data count as sources: Go embeds or reads them.
GO_DIRS := cmd pkg $(wildcard web/*.go examples)
GO_FILES := go.mod go.sum $(shell find $(GO_DIRS) -name '*.go' -not -name '*_test.go')
WEB_FILES := web/index.html web/package.json web/tsconfig.json web/vite.config.ts web/offline.ts \
	$(shell find web/src web/public -type f 2>/dev/null)
MODULES := web/node_modules/.package-lock.json
PAGE := web/dist/index.html
SAMPLE := .cache/sample/counts.json

.PHONY: help build run test race fuzz sim bench lint lint-go lint-web test-web web fmt sample clean

help:
	@sed -n '2,/^$$/{/^#/!q;s/^# \{0,1\}//p}' Makefile

build: bin/signal bin/peer

run: build $(SAMPLE)
	@exec .make/run

# The browser tests drive bin/signal and bin/peer, so both are built first.
test: lint race test-web

race: $(PAGE) $(SAMPLE)
	go test $(TAGS) -race ./...
	go test -run WithoutVirtualTables ./pkg/crsql

test-web: build $(SAMPLE)
	cd web && npx --no-install vitest run

# Minimizing is bounded, since some targets open a database for each run: it would take the time from them.
fuzz: $(PAGE)
	for pkg in $$(go list ./...); do \
	  for target in $$(go test $(TAGS) -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; \
	    go test $(TAGS) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$pkg"; \
	  done; \
	done
	CRMESH_SCRIPTS=$(SCRIPTS) go test $(TAGS) -count=1 -timeout 120m -run '^TestDifferential$$' ./pkg/crsql
	CRMESH_KILLS=$(KILLS) go test $(TAGS) -count=1 -timeout 120m -run '^TestPower$$' ./pkg/crsql

sim: $(MODULES)
	go test $(TAGS) -count=1 -timeout 60m -v -run 'Sim' ./pkg/mesh/meshtest -seeds $(SEEDS)
	CRMESH_COPIES=1000 go test $(TAGS) -count=1 -timeout 60m -run 'TestCopies$$' ./pkg/crsql
	cd web && CRMESH_SEEDS=$(SEEDS) npx --no-install vitest run --testTimeout 3600000 src/syncproto/sim.test.ts

bench: build $(SAMPLE)
	go test $(TAGS) -run '^$$' -bench . -benchtime 1x -count $(COUNT) -timeout 60m ./pkg/crsql | tee .cache/bench-crsql.txt
	go test $(TAGS) -run '^$$' -bench . -benchtime 1x -count $(COUNT) -timeout 60m ./cmd/peer | tee .cache/bench-peer.txt
	go tool benchstat .cache/bench-crsql.txt
	go tool benchstat .cache/bench-peer.txt

lint: lint-go lint-web

lint-go: $(PAGE)
	@unformatted=$$(gofmt -l $(GO_DIRS)); \
	if [ -n "$$unformatted" ]; then echo "gofmt: run 'make fmt' for: $$unformatted" >&2; exit 1; fi
	go vet $(TAGS) ./...
	go tool staticcheck $(TAGS) ./...

lint-web: $(MODULES)
	cd web && npx --no-install biome check .
	cd web && npx --no-install tsc --noEmit

web: $(PAGE)

fmt: $(MODULES)
	gofmt -w $(GO_DIRS)
	cd web && npx --no-install biome check --write .

sample: $(SAMPLE)

clean:
	rm -rf bin .cache web/dist web/test-results

$(MODULES): web/package-lock.json web/package.json
	cd web && npm ci --no-audit --no-fund
	@touch $@

$(PAGE): $(MODULES) $(WEB_FILES)
	cd web && npx --no-install vite build --logLevel warn
	@touch $@

$(SAMPLE): $(MODULES) web/sample/build.mjs web/sample/sql.mjs
	cd web && node sample/build.mjs ../.cache/sample

bin/signal bin/peer: bin/%: $(GO_FILES) $(PAGE)
	go build $(TAGS) -o $@ ./cmd/$*
