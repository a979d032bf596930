# The commands of this project. Each installs what it needs into $(CACHE), and stops what it started.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CREDRESOLVE_TEST_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/credresolve-test
GO_TOOL := go tool -modfile=tools/go.mod

.PHONY: help build demo test lint bench generate cross

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## bin/credresolve, static
	CGO_ENABLED=0 go build -trimpath -o bin/credresolve ./cmd/credresolve

demo: ## a secret in an encrypted file, resolved in an application's configuration; needs Go alone
	@examples/demo/run.sh

test: ## every test, against real servers, which it installs as root on Debian
	scripts/test.sh

lint: ## gofmt, go vet, staticcheck, go.mod, cross-compilation
	scripts/lint.sh

bench: ## the table of ratios, each with its limit
	scripts/bench.sh

generate: ## what is made from the sources: the JSON Schema, the table of capabilities
	go generate ./...
