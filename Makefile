# The commands a person needs. Everything lives in deploy/local/; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up down status clean-data test bench clients lint fmt

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

up: ## install what is missing, build, start everything in the background, send a first request
	@./deploy/local/up.sh

down: ## stop what `make up` started; the data stays
	@./deploy/local/down.sh

status: ## show what runs
	@./deploy/local/status.sh

clean-data: ## stop everything and delete its data under .local/
	@./deploy/local/clean.sh

test: ## everything from the format check to end-to-end tests
	@./deploy/local/test.sh

bench: ## our proxy beside plain nginx, as a table (ARGS="quick", "method", "profile", "instructions", or "api" for the admin API over a million records)
	@./deploy/local/bench.sh $(ARGS)

clients: ## client code from the API's document (TypeScript, Python, Go), compiled and tried against `make up`
	@./deploy/local/clients.sh

lint: ## only the static checks of `make test`
	@./deploy/local/test.sh lint

fmt: ## format the sources
	@cargo fmt --all
