# Every task of crmesh, the same on a laptop and in CI. Plain tools only: Go 1.26, Node 20, a C compiler, Chromium,
# coturn.
#
#   make build    bin/signal and bin/peer, with the page inside
#   make run      a signaling server and one replica with the sample database; prints an invite link (Ctrl-C stops)
#   make test     everything: lint, Go tests with the race detector, TypeScript tests, real Chromium
#   make race     the Go tests alone, with the race detector; the simulation, whose runs have one goroutine each, mostly without
#   make fuzz     every fuzz target for FUZZTIME (20s) each; then SCRIPTS (20000) random scripts on our cr-sqlite and on the
#                 original, and KILLS (200) kills of a process that writes
#   make sim      the simulations: SEEDS (20000) seeds on a model of a database, DISK_SEEDS (1500) on the real one,
#                 a room of 64 nodes, and PAIRS (1000) pairs that join a real signaling server at one instant
#   make soak     8 peer processes that write, and are killed at any instant and started again, for MINUTES (20); then browsers and
#                 a peer whose tabs, programs and links end at any moment, for 4 MINUTES rounds
#   make netns    real programs behind real routers, in network namespaces of the kernel, and how soon rows come through
#                 after a change of the network (CRMESH_RUNS times each, 3): needs Linux, root, and the tools unshare, ip and
#                 nft; nothing is left of them, however it ends
#   make rolling  a rolling restart of two signaling servers under CLIENTS (2000) clients
#   make bench    cr-sqlite in Go beside plain statements and the original, and sync between two replicas beside a bare data
#                 channel, COUNT (6) times; benchstat gives the medians
#   make bench-abuse  100,000 rooms from one address, and the memory that they take beside the bound; then what the envelopes of
#                 two members take while others attack their server, COUNT times. Linux
#   make bench-signal  the signaling server beside y-webrtc's and peerjs-server (both from npm): memory of 10,000 idle clients,
#                 joins, relay latency; needs 11,000 open files a process (ulimit -Hn) and takes 4 minutes
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
DISK_SEEDS ?= 1500
PAIRS ?= 1000
MINUTES ?= 20
CLIENTS ?= 2000
COUNT ?= 6

# Assets and test data count as sources: Go embeds or reads them.
GO_DIRS := cmd pkg $(wildcard web/*.go examples)
GO_FILES := go.mod go.sum $(shell find $(GO_DIRS) -name '*.go' -not -name '*_test.go')
WEB_FILES := web/index.html web/package.json web/tsconfig.json web/vite.config.ts web/offline.ts web/compress.ts \
	$(shell find web/src web/public -type f 2>/dev/null)
MODULES := web/node_modules/.package-lock.json
PAGE := web/dist/index.html
SAMPLE := .cache/sample/counts.json

.PHONY: help build run test race fuzz sim soak netns rolling bench bench-signal bench-abuse lint lint-go lint-web test-web web fmt sample clean

help:
	@sed -n '2,/^$$/{/^#/!q;s/^# \{0,1\}//p}' Makefile

build: bin/signal bin/peer

run: build $(SAMPLE)
	@exec .make/run

# The browser tests drive bin/signal and bin/peer, so both are built first.
test: lint race test-web

race: $(PAGE) $(SAMPLE)
	go test $(TAGS) -race ./...
	go test ./pkg/mesh/meshtest
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
	CRMESH_SEEDS=$(DISK_SEEDS) go test $(TAGS) -count=1 -timeout 60m -v -run 'TestSimulationOnRealDatabases$$' ./cmd/peer
	CRMESH_MEMBERS=64 go test $(TAGS) -count=1 -timeout 60m -v -run 'TestLargeRoom$$' ./pkg/mesh
	CRMESH_PAIRS=$(PAIRS) go test $(TAGS) -count=1 -timeout 60m -v -run 'TestPairs$$' ./pkg/mesh
	CRMESH_COPIES=1000 go test $(TAGS) -count=1 -timeout 60m -run 'TestCopies$$' ./pkg/crsql
	cd web && CRMESH_SEEDS=$(SEEDS) npx --no-install vitest run --testTimeout 3600000 src/syncproto/sim.test.ts

soak: build
	CRMESH_SOAK=$(MINUTES)m go test $(TAGS) -count=1 -timeout $$(($(MINUTES) + 15))m -v -run '^TestSoak$$' ./cmd/peer
	cd web && CRMESH_CHAOS=$$((4 * $(MINUTES))) npx --no-install vitest run test/e2e/chaos.test.ts

# The namespaces are those of a process tree that the kernel kills with its first process.
netns: $(PAGE)
	go test $(TAGS) -c -o .cache/netns.test ./cmd/peer
	cd cmd/peer && CRMESH_NETNS=1 unshare --net --mount --pid --fork --kill-child --mount-proc \
	  ../../.cache/netns.test -test.run '^TestNetns' -test.v -test.timeout 30m

rolling: $(PAGE)
	CRMESH_CLIENTS=$(CLIENTS) go test $(TAGS) -count=1 -timeout 15m -v -run '^TestClusterRollingRestart$$' ./cmd/signal

bench: build $(SAMPLE)
	go test $(TAGS) -run '^$$' -bench . -benchtime 1x -count $(COUNT) -timeout 60m ./pkg/crsql | tee .cache/bench-crsql.txt
	go test $(TAGS) -run '^$$' -bench . -benchtime 1x -count $(COUNT) -timeout 60m ./cmd/peer | tee .cache/bench-peer.txt
	go tool benchstat .cache/bench-crsql.txt
	go tool benchstat .cache/bench-peer.txt

bench-abuse: $(PAGE)
	@mkdir -p .cache
	go test $(TAGS) -count=1 -v -run '^TestAbuse$$/^rooms-unlimited$$' ./cmd/signal -abuse 34
	go test $(TAGS) -run '^$$' -bench '^BenchmarkAbuse$$' -benchtime 1x -count $(COUNT) -timeout 120m ./cmd/signal | tee .cache/bench-abuse.txt
	go tool benchstat .cache/bench-abuse.txt

# The servers that ours is measured beside are not part of the project: they get a directory of their own.
OTHERS := .cache/bench-signal
bench-signal: bin/signal $(OTHERS)/node_modules/.package-lock.json
	CRMESH_BENCH_SIGNAL=$(CURDIR)/$(OTHERS) go test $(TAGS) -run '^$$' -bench '^BenchmarkSignaling$$' -benchtime 1x -timeout 10m \
	  ./cmd/signal | tee .cache/bench-signal.txt

$(OTHERS)/node_modules/.package-lock.json: Makefile
	npm install --prefix $(OTHERS) --no-audit --no-fund --ignore-scripts --save-exact y-webrtc@10.3.0 peer@1.0.2 ws@8.23.0
	@touch $@

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
