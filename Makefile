# The front door. `make` or `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint deps fmt clean

# scripts/setup may find cargo in a home folder, or a newer toolchain than the pinned one.
CARGO := scripts/with-tools cargo

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing (Debian, Ubuntu), or say what to install
	@scripts/setup

build: ## Build target/release/namegate
	@scripts/setup --for build
	$(CARGO) build --release --package namegate

demo: ## Build, then watch a command reach only the names its policy allows (as root)
	@scripts/setup --for demo
	$(CARGO) build --release --package namegate
	@scripts/with-tools examples/demo/run.sh

test: ## Run every test, real packets included (as root or through sudo); ends with the total
	@scripts/setup --for test
	@$(CARGO) xtask test

lint: ## Formatting, clippy, documentation, dependency direction, tidy
	@scripts/setup --for build
	@$(CARGO) xtask lint

deps: ## Check which crate uses which
	@$(CARGO) xtask deps

fmt: ## Format the sources
	$(CARGO) fmt --all

clean: ## Remove what was built
	rm -rf target build
