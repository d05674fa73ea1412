# make            lists the targets
# make demo       the main job: a control node and three PoPs, functions deployed and asked
# make test       all tests

GO      ?= go
BIN     := bin
PKGS    := ./...
FUZZTIME ?= 20s

# Pebble's zstd in Go: the one in C, which nothing here needs, takes minutes to compile.
export GOFLAGS := $(strip $(GOFLAGS) -tags=pebblegozstd)

.DEFAULT_GOAL := help
.PHONY: help build demo test check lint fmt-check race bench bench-peers fuzz soak examples reference clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

build: ## build bin/selvage
	$(GO) build -o $(BIN)/selvage ./cmd/selvage

demo: build ## the main job, end to end, on this machine (DEMO_JSON=FILE also writes each check as JSON)
	$(GO) build -o $(BIN)/demo ./cmd/demo
	$(BIN)/demo -selvage $(BIN)/selvage $(if $(DEMO_JSON),-json $(DEMO_JSON))

test: ## all tests, of every module in the tree
	$(GO) test -timeout 25m $(PKGS)
	cd sdk/go && $(GO) vet ./... && $(GO) test ./...
	for d in jwt proxy redirects streamtoken welcome; do (cd sdk/examples/$$d && $(GO) vet ./... && $(GO) test ./...) || exit 1; done

check: fmt-check lint test race ## what CI runs: format, vet, lint, tests, the race detector, each benchmark once, a clean tree
	$(GO) test -run '^$$' -bench . -benchtime 1x $(PKGS) >/dev/null
	git diff --exit-code

fmt-check:
	@out="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

lint: ## go vet and staticcheck
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)

race: ## the tests that exercise concurrency, under the race detector
	$(GO) test -race -short -timeout 25m ./runtime/... ./edge/... ./control/...

bench: build ## speed, as ratios measured side by side in one run (BENCH_JSON=FILE also writes JSON lines)
	$(GO) build -o $(BIN)/peers ./bench/peers
	$(BIN)/peers $(if $(BENCH_JSON),-json $(BENCH_JSON))

bench-peers: build ## the same request on workerd, deno and nginx (npm and apt fetch what is missing; nginx only as root)
	$(GO) build -o $(BIN)/peers ./bench/peers
	npm install --silent --no-audit --no-fund --prefix $(BIN)/servers workerd deno
	@command -v nginx >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; } >/dev/null
	$(BIN)/peers -servers $(BIN)/servers $(if $(BENCH_JSON),-json $(BENCH_JSON))

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	GO="$(GO)" .ci/fuzz $(FUZZTIME)

soak: build ## long runs: the fuzz targets for five minutes each, name queries for ten, the race tests ten times, 2,000 generated modules, 200 kills and 200 losses of power under KV writes, 100 histories, fleets of 300 nodes cut and killed, memory after a million requests
	$(MAKE) fuzz FUZZTIME=5m
	$(GO) test ./control/geodns -run '^$$' -fuzz '^FuzzRespond$$' -fuzztime 10m
	SELVAGE_GENERATED=2000 $(GO) test -timeout 25m -count 1 -run TestGeneratedModules -v ./runtime/compile
	SELVAGE_POWER_ROUNDS=200 $(GO) test -timeout 60m -count 1 -run TestPowerLossKeepsWhatWasAcknowledged -v ./control/store
	SELVAGE_KV_ROUNDS=200 SELVAGE_KV_HISTORIES=100 $(GO) test -timeout 60m -count 1 -run 'TestAcknowledgedWritesOutliveKills|TestHistoriesAreLinearizable' -v ./cmd/selvage
	SELVAGE_MODEL=full $(GO) test -timeout 120m -count 1 -run TestLargeFleet -v ./bench/fleet
	$(GO) test -race -count 10 ./runtime/... ./edge/... ./control/...
	$(GO) build -o $(BIN)/peers ./bench/peers
	$(BIN)/peers -rows leak/

reference: build ## write the generated reference pages
	$(BIN)/selvage reference > REFERENCE.md

clean: ## remove what was built
	rm -rf $(BIN) .selvage
