# Needs make, git and Python 3.11 or newer with venv; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A test that hangs ends its process; pytest goes on without it, and names the test. So there is always another process.
ONE_BY_ONE := -n 1
# Most tests wait for servers more than they compute, so there are more processes than cores.
AT_ONCE := -n 4 --dist=loadfile --no-loadscope-reorder
NODE := .venv-node
NODE_READY := node_modules/.ready
CHROMIUM ?= chromium
EXPORT := $(BIN)/uv export --frozen --quiet --no-header --no-annotate --no-emit-project

export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

PORTAL_LOG := $(VENV)/portal-build.log

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(READY) ## Set up and start everything: PostgreSQL, Stripe stand-in with demo data, API, worker, portal
	@if test -f portal/package.json && ! $(MAKE) --no-print-directory --question portal 2>/dev/null; then \
	  echo "Building the portal. Later starts find it built."; \
	  $(MAKE) --silent portal >$(PORTAL_LOG) 2>&1 || { rm -rf portal/dist; \
	    echo "Warning: starting without the portal, because it could not be built: see $(PORTAL_LOG)." >&2; }; \
	fi
	@exec $(BIN)/coseat dev

.PHONY: test
test: $(READY) ## Set up and run every test (TEST_OPTIONS="tests/money -x" for some)
ifdef TEST_OPTIONS
	@$(BIN)/python -m pytest $(TEST_OPTIONS)
else
	@echo "Tests that depend on how long something takes, one by one; then the others, several at once."
	@$(BIN)/python -m pytest -q $(ONE_BY_ONE) -m timed
	@$(BIN)/python -m pytest $(AT_ONCE) -m "not timed"
endif

# A release's programs, for the tests on another one than the extra `local` brings (on Debian: apt install postgresql-15).
POSTGRES ?= /usr/lib/postgresql/15/bin

.PHONY: test-postgres
test-postgres: $(READY) ## The tests on the PostgreSQL whose programs are in POSTGRES (/usr/lib/postgresql/15/bin)
ifdef TEST_OPTIONS
	@$(BIN)/python -m testkit.other_postgres $(POSTGRES) $(TEST_OPTIONS)
else
	@$(BIN)/python -m testkit.other_postgres $(POSTGRES) -q $(ONE_BY_ONE) -m timed
	@$(BIN)/python -m testkit.other_postgres $(POSTGRES) $(AT_ONCE) -m "not timed"
endif

# promtool comes with Debian's package prometheus.
.PHONY: test-alerts
test-alerts: ## Check the alert rules of deploy/ and run their unit tests (needs promtool)
	@command -v promtool >/dev/null || { echo "make test-alerts needs promtool (on Debian: apt install prometheus)." >&2; exit 1; }
	@cd deploy/prometheus && promtool check rules alerts.yml && promtool test rules alerts_test.yml

.PHONY: test-pooler
test-pooler: $(READY) ## The contract, two workers and reconcile behind PgBouncer in transaction mode
	@$(BIN)/python -m verification.storms.pooler --contract

.PHONY: system-packages
system-packages: ## Install what some checks need of Debian, as root: PgBouncer, Chromium, Prometheus
	apt-get update
	apt-get install --yes --no-install-recommends pgbouncer chromium prometheus

.PHONY: check
check: lint audit test ## Format, lint, types, import rules, known vulnerabilities and every test

.PHONY: lint
lint: $(READY) ## The checks without the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m testkit.prose

# uv's exit code is 1 for vulnerabilities that are known and 2 where it could not ask. Only the first says something of
# the code, so without an answer the check goes on and says so; AUDIT=required fails then too.
ADVISORIES ?= https://api.osv.dev/

# Node for these checks comes from PyPI, in an environment of its own; packages run no script at installation.
.PHONY: lint-api
lint-api: $(READY) $(NODE_READY) ## Check the OpenAPI document with Redocly and Spectral (sets Node up on its own)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" $(BIN)/python -m testkit.lint_openapi

# The built TypeScript client, for whatever in the workspace imports `@coseat/client`.
CLIENT := clients/typescript/dist/index.js
CLIENT_SOURCES := $(filter-out clients/typescript/src/generated/%,$(shell find clients/typescript/src -name '*.ts'))

$(CLIENT): $(NODE_READY) openapi/openapi.json clients/typescript/generate.mjs $(wildcard clients/typescript/*.json) $(CLIENT_SOURCES)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm run --silent build --workspace @coseat/client

.PHONY: client
client: $(CLIENT) ## Generate and build the TypeScript client (sets Node up on its own)

# Answers the Billing.js client in the page.
ADAPTER := clients/billing-js/dist/index.js

$(ADAPTER): $(CLIENT) $(wildcard clients/billing-js/src/*.ts clients/billing-js/*.json)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm run --silent build --workspace @coseat/billing-js

# Node runs the tests in TypeScript as they are, and `tsc` checks their types.
CLIENT_TESTS ?= $(wildcard clients/*/test/*.test.ts)

# Clients by other generators, which run the same calls.
OTHER_CLIENTS := clients/checks/generated/.ready

$(OTHER_CLIENTS): $(NODE_READY) openapi/openapi.json clients/checks/generate.ts
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" node clients/checks/generate.ts

.PHONY: test-clients
test-clients: $(CLIENT) $(ADAPTER) $(OTHER_CLIENTS) ## Types, sizes and tests of the clients against a `coseat dev` of their own (sets Node up on its own)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" node clients/checks/documents.ts
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npx --no-install tsc --project clients/checks
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" node clients/checks/run.ts $(CLIENT_TESTS)

.PHONY: test-billing-js
test-billing-js: $(ADAPTER) ## The published Billing.js client on this API, in Chromium (on Debian: apt install chromium)
	@command -v $(CHROMIUM) >/dev/null || { echo "make test-billing-js needs $(CHROMIUM) (make system-packages installs it)." >&2; exit 1; }
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" CHROMIUM="$$(command -v $(CHROMIUM))" node clients/checks/run.ts clients/billing-js/test/pages.browser.ts

# What is sent to the browser. The build fails if it is too big (portal/scripts/size.mjs).
PORTAL := portal/dist/index.html
PORTAL_SOURCES := $(wildcard portal/*.html portal/*.json portal/*.ts) $(shell find portal/src portal/scripts -type f)

$(PORTAL): $(CLIENT) package-lock.json $(PORTAL_SOURCES)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm run --silent build --workspace @coseat/portal

.PHONY: portal
portal: $(PORTAL) ## Build the portal into portal/dist (sets Node up on its own)

# The portal's components for other applications: their bundlers need no plugin of ours.
LIBRARY := portal/library/index.js

$(LIBRARY): $(CLIENT) package-lock.json $(PORTAL_SOURCES)
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm run --silent library --workspace @coseat/portal

.PHONY: packages
packages: $(CLIENT) $(ADAPTER) $(LIBRARY) ## Pack the client, the Billing.js adapter and the portal into packages/, for npm to install
	@mkdir -p packages
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm pack --silent --pack-destination packages \
	  --workspace @coseat/client --workspace @coseat/billing-js --workspace @coseat/portal

.PHONY: lint-portal
lint-portal: $(CLIENT) ## The portal's types, and its own checks of texts, keys and styles
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm run --silent lint --workspace @coseat/portal

.PHONY: test-portal
test-portal: lint-portal $(PORTAL) $(LIBRARY) ## The portal's tests, in Chromium (on Debian: apt install chromium)
	@command -v $(CHROMIUM) >/dev/null || { echo "make test-portal needs $(CHROMIUM) (make system-packages installs it)." >&2; exit 1; }
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" CHROMIUM="$$(command -v $(CHROMIUM))" npm run --silent test --workspace @coseat/portal

.PHONY: screenshots
screenshots: $(PORTAL) ## Pictures of the portal's main states at 320, 768 and 1280 px, into portal/screenshots
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" CHROMIUM="$$(command -v $(CHROMIUM))" npm run --silent screenshots --workspace @coseat/portal

BASE ?= origin/main

.PHONY: api-changes
api-changes: $(READY) ## Print how the OpenAPI document differs from that of BASE (origin/main), and fail if callers break
	@$(BIN)/python -m testkit.openapi_changes $(BASE)

.PHONY: audit
audit: $(READY) ## Look the locked versions up among known vulnerabilities
	@lock=$$(mktemp -d); trap 'rm -rf "$$lock"' EXIT; $(BIN)/python -m testkit.audit_lock "$$lock" || exit; \
	told=$$(UV_HTTP_RETRIES=1 $(BIN)/uv audit --directory "$$lock" --frozen --preview-features audit-command \
	  --service-url $(ADVISORIES) 2>&1); status=$$?; \
	printf '%s\n' "$$told"; \
	if [ $$status -eq 2 ] && [ "$(AUDIT)" != required ] && printf '%s' "$$told" | tr '\n' ' ' | grep -q 'for url *('; then \
	  echo 'Not audited: the advisory service does not answer.'; exit 0; \
	fi; exit $$status

.PHONY: format
format: $(READY) ## Format the code and apply safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: tour
tour: $(READY) ## Run a tour of the service, with every answer checked, against a fresh local one
	@exec $(BIN)/python examples/tour.py

# The CLI's own binary comes with its platform package: no script of a package is run, and node is not needed after.
STRIPE_CLI := @stripe/cli@1.52.0

.PHONY: stripe-cli
stripe-cli: $(READY) ## Run the official Stripe CLI (npm, Linux or macOS) against the Stripe stand-in
	@command -v npm >/dev/null || { \
	  echo "make stripe-cli needs npm, to install $(STRIPE_CLI) into .stripe-cli (on Debian: apt install npm)." >&2; \
	  echo "With a Stripe CLI of your own: $(BIN)/python examples/stripe_cli.py --cli PATH" >&2; \
	  exit 1; }
	@mkdir -p .stripe-cli && npm install --prefix .stripe-cli --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent $(STRIPE_CLI)
	@exec $(BIN)/python examples/stripe_cli.py

.PHONY: bench
bench: $(READY) ## Reads, ingest, first fill and growth beside their neighbours (about 10 minutes; needs npm for one of them)
	@exec $(BIN)/python -m benchmarks

.PHONY: year
year: $(READY) ## A year of the clock over 50 subscriptions of every shape (about 4 minutes)
	@exec $(BIN)/python -m verification.money.year

.PHONY: openapi
openapi: $(READY) ## Record the examples anew and write openapi/openapi.json from the code
	@mkdir -p openapi
	$(BIN)/python -m tests.contract.recording
	$(BIN)/coseat openapi > openapi/openapi.json.new
	@mv openapi/openapi.json.new openapi/openapi.json

.PHONY: requirements
requirements: $(READY) ## Resolve pyproject.toml again and pin the result with hashes
	$(BIN)/uv lock --quiet
	$(EXPORT) --all-extras --group dev --output-file requirements.txt
	$(EXPORT) --no-dev --extra tracing --output-file requirements-production.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	  --output-file requirements-node.txt requirements-node.in

.PHONY: clean
clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) $(NODE) node_modules clients/*/node_modules clients/*/dist clients/checks/generated portal/node_modules portal/dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(NODE_READY): $(READY) requirements-node.txt package.json package-lock.json $(wildcard clients/*/package.json portal/package.json) .npmrc
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(NODE)
	@$(BIN)/uv pip sync --quiet --python $(NODE)/bin/python --require-hashes requirements-node.txt
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" npm ci --ignore-scripts --silent
	@touch $@

$(READY): requirements.txt pyproject.toml
	@test -x $(BIN)/uv || { \
	  for python in python3.13 python3.12 python3.11 python3 python; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      rm -rf $(VENV) && $$python -m venv $(VENV) && \
	      $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.txt)"; \
	      exit; \
	    fi; \
	  done; \
	  echo "Coseat needs Python 3.11 or newer with the venv module (on Debian: apt install python3-venv)." >&2; \
	  exit 1; }
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
