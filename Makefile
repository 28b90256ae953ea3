# make test is what CI runs. It needs Go and git; everything else it installs
# when it is root on Debian, and otherwise says what is missing.

GO        ?= go
FUZZTIME  ?= 10s
PACKAGES  := ./...

.PHONY: help test unit lint vet deps fuzz seeds torture bench growth plot demo build clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

test: deps vet lint unit seeds demo ## everything that CI runs

deps: ## PostgreSQL, bubblewrap, nginx, HAProxy and Node, if they are missing
	@sh scripts/deps.sh

vet: ## the compiler's own checks and the format
	$(GO) vet $(PACKAGES)
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted:"; echo "$$out"; exit 1; fi

lint: ## staticcheck, at the version pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod staticcheck $(PACKAGES)

unit: ## all tests, shuffled, with the race detector
	$(GO) test -race -shuffle=on -timeout 20m $(PACKAGES)

seeds: ## the life-cycle tests notice each of the bugs that are put into the code
	$(GO) test -tags seededbugs -timeout 15m -run TestSeededBugs ./test/life

torture: ## ten thousand histories of tokens against the model, on both stores; an hour or so
	SEQUENCES=10000 $(GO) test -count=1 -timeout 90m -run 'TestLife|TestWriters|TestLinearizable' ./test/life

demo: ## the whole story, once, on the built binary
	$(GO) build -o .cache/gradegate ./cmd/gradegate
	.cache/gradegate demo --exit

fuzz: ## every fuzz target for FUZZTIME each
	@sh scripts/fuzz.sh $(FUZZTIME)

bench: growth ## the figures of docs/performance.md, as ratios within one run
	$(GO) test -run '^$$' -bench . -benchtime 300ms -benchmem ./internal/token ./internal/authn ./internal/journal ./internal/trail
	$(GO) test -run '^$$' -bench MillionSources -benchtime 1x ./internal/httpapi
	$(GO) test -run '^$$' -bench 'Pairs|Guessing|Start' -benchtime 1x -timeout 60m ./test/bench

growth: ## what lists, searches, revoke-all and the rest cost beside a million tokens
	$(GO) test -run '^$$' -bench Growth -benchtime 1x -timeout 60m ./test/bench

plot: ## docs/img/growth.svg, from what make growth has found
	$(GO) run ./test/bench/plot

build: ## a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o gradegate ./cmd/gradegate

clean: ## what the targets above made
	rm -rf .cache gradegate
