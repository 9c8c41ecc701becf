# `make demo` and `make test` are all a newcomer needs; each does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-vm test-ipvs test-apiserver soak flows lint bench format clean packages

help:
	@echo 'make demo      real traffic balanced by the kernel, in namespaces of its own (no cluster needed)'
	@echo 'make test      everything: lint, unit, kernel and packet tests'
	@echo 'make test-vm   what depends on the kernel, on Debian 12 (6.1) in an emulated machine, 25 minutes'
	@echo 'make test-ipvs every packet case in mode ipvs and over SCTP, in the same machine, an hour and a half'
	@echo 'make test-apiserver  the program beside a real kube-apiserver and etcd, which Go builds the first time, 10 minutes'
	@echo 'make soak      random changes, faults, attacks and kills for 10 minutes, then 50 kills; MINUTES=n, SEED=n, KILLS=n'
	@echo 'make flows     a million new flows in each of two modes while Services shrink and move: none may miss its Service; FLOWS=n, SEED=n'
	@echo 'make build     leaves a runnable bin/kube-proxy'
	@echo 'make bench     the benchmarks behind docs/performance.md; figures also as JSON in dist/bench.json'
	@echo 'make lint      formatter, linter, import boundaries'

# npm leaves this file behind when node_modules is complete.
node_modules/.package-lock.json: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

setup: node_modules/.package-lock.json

build: setup
	@node_modules/.bin/tsc -b

# Debian packages that the packet tests and the demo use; asked for only when something is missing.
packages:
	@scripts/install-packages

demo: build
	@scripts/install-packages demo
	@node dist/demo/main.js

test: build packages
	@node dist/test/run.js

# What depends on the kernel, on Debian's 6.1, in an emulated machine: slow, so not part of `make test`.
test-vm: build packages
	@node dist/test/vm/main.js --minutes 60 -- node dist/test/vm/suite.js

# Every packet case in mode ipvs, and over SCTP in all modes.
test-ipvs: build packages
	@node dist/test/vm/main.js --minutes 180 -- node dist/test/vm/packets.js --all

# Beside a real kube-apiserver and etcd. Where they can't be had the tests are skipped, with the reason.
test-apiserver: build packages
	@scripts/install-apiserver >/dev/null || true
	@REAL_APISERVER=1 node --test --test-reporter=spec dist/test/realserver/situations.test.js

# The long random test, then the program killed 50 times at random moments, with 2,000 Services.
soak: build packages
	@node dist/test/soak/main.js --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))
	@KILLS=$(or $(KILLS),50) node --test --test-reporter=spec dist/test/process/kill.test.js

# New flows by the ten thousand a second while Services change all the time.
flows: build packages
	@node dist/test/flows/main.js --flows $(or $(FLOWS),1000000) $(if $(SEED),--seed $(SEED))

lint: setup
	@node_modules/.bin/eslint .
	@node_modules/.bin/prettier --check .

format: setup
	@node_modules/.bin/prettier --write .

bench: build
	@node dist/bench/main.js --json dist/bench.json

clean:
	rm -rf dist packages/*/dist node_modules
