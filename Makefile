# Each target installs what it needs into .venv, once. `make` alone lists the targets.
PYTHON ?= python3
IN_VENV := .venv/bin/python
PIP_INSTALL := $(IN_VENV) -m pip -qq --disable-pip-version-check install

# Some containers set it. Without cached bytecode each of the tests' thousand starts of Python compiles everything.
unexport PYTHONDONTWRITEBYTECODE

# A lock serializes the set-up of concurrent makes in one clone. Without flock, start them one after another.
ONE_AT_A_TIME := $(if $(shell command -v flock),flock .)
SET_UP := +$(ONE_AT_A_TIME) $(MAKE) --no-print-directory
# Continue without it: `python -m tests` reports and judges what cannot run.
SET_UP_MYSQLCLIENT := $(SET_UP) .venv/.mysql 2>/dev/null || true

.SILENT:
.PHONY: help run test-fast test test-mysql test-all test-long faults bench compose-check lint messages audit lock screenshots clean

help: ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start web, worker and scheduler, and print example commands; Ctrl-C stops them
	$(SET_UP) .venv/.base $(if $(filter mysql:%,$(DATABASE_URL)),.venv/.mysql)
	exec $(IN_VENV) -m devtools.run

test-fast: ## one to three minutes: tests that start no program, on SQLite
	$(SET_UP) .venv/.dev
	$(IN_VENV) -m tests sqlite -- -m "unit or db" -n 3 $(TESTS)

test: DATABASES := mariadb sqlite
test: ## all but the long tests, on SQLite and on MariaDB with Redis; TESTS="-k replay -x" is for pytest
test-mysql: DATABASES := mysql
test-mysql: ## the same on MySQL with Redis
test-all: DATABASES := mysql mariadb sqlite
test-all: ## the same on all three, two databases in parallel
test test-mysql test-all:
	$(SET_UP) .venv/.dev
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers $(filter-out sqlite,$(DATABASES)) redis mysqlclient chromium promtool
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m tests $(DATABASES) -- $(TESTS)

test-long: ## the rest: fuzz corpus, fault scenarios, seeded bugs; SHARE=2/7 runs a seventh of it
	$(SET_UP) .venv/.dev
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers mariadb mysql redis mysqlclient libfaketime galera rabbitmq
	$(SET_UP_MYSQLCLIENT)
	LONG_SHARE=$(SHARE) $(IN_VENV) -m tests mariadb -- -m long -n 1 $(TESTS)
	LONG_SHARE=$(SHARE) $(IN_VENV) -m tests sqlite -- -m long -n 1 $(TESTS)

faults: ## inject faults under load and check for lost money; SCENARIO= SEED= MINUTES= JOBS= NAME=; SEEDED_BUGS=1 seeds bugs
	$(SET_UP) .venv/.base
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers mariadb mysql redis mysqlclient libfaketime galera rabbitmq
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m faults $(SCENARIO) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(NAME),--name $(NAME)) $(if $(SEEDED_BUGS),--seeded-bugs)

bench: ## measure throughput and latency against baselines; QUICK=1 takes 3 to 4 minutes, BENCH="latency" narrows it
	$(SET_UP) .venv/.base
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers mariadb redis mysqlclient wrk
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m bench $(BENCH) $(if $(QUICK),--quick)

screenshots: ## retake docs/screenshots on a system of its own, with Chromium
	$(SET_UP) .venv/.dev
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers chromium
	$(IN_VENV) -m tests.screenshots

compose-check: ## build, start, break, update and restore the containers; needs Docker, or tests/containers/private_engine.sh
	$(SET_UP) .venv/.dev
	$(IN_VENV) -m pytest tests/containers --verbose $(TESTS)

lint: ## ruff, mypy and the import rules
	$(SET_UP) .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

messages: ## update the Russian catalogue from the code, and list what is left to translate
	$(SET_UP) .venv/.dev
	$(IN_VENV) -m tests.translations

audit: ## check the pinned versions for known vulnerabilities; exits 2 if no source can be asked
	$(SET_UP) .venv/.audit
	.ci/audit

lock: ## pin requirements/*.in again in requirements/*.txt
	$(SET_UP) .venv/.lock
	for name in base mysql observing dev; do \
		.venv/lock/bin/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
			--no-header --no-annotate --generate-hashes requirements/$$name.in -o requirements/$$name.txt || exit; \
	done

clean: ## remove .venv and every cache, but not the data in .data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of these stamp files marks an installed set, as in requirements/ at that time. An installation removes .base until it
# is complete, so an interrupted set-up (Ctrl-C, kill -9) leaves none, and .venv is rebuilt: pip would take a partly
# written package for installed. After an ordinary failure .base is restored.
INSTALL = trap 'exit 130' HUP INT TERM; \
	echo "Installing $< into .venv"; \
	test ! -e .venv/.base || mv .venv/.base .venv/.aside; \
	$(PIP_INSTALL) -r $<; status=$$?; \
	test $$status -ge 128 || test ! -e .venv/.aside || mv .venv/.aside .venv/.base; \
	test $$status -eq 0 && touch $@

.venv/.base: requirements/base.txt
	test -e $@ || { $(CHECK_PYTHON); \
		test ! -e .venv/bin || echo "The set-up was interrupted; it is done anew"; \
		echo "Creating .venv"; \
		rm -rf .venv/bin .venv/include .venv/lib .venv/lib64 .venv/share .venv/.aside .venv/.dev .venv/.mysql; \
		$(PYTHON) -m venv .venv; }
	$(INSTALL)

.venv/.dev: requirements/dev.txt .venv/.base
	$(INSTALL)

.venv/.mysql: requirements/mysql.txt .venv/.base
	{ $(INSTALL); } 2>.venv/mysqlclient.log || { \
		echo "!! mysqlclient can't be built (.venv/mysqlclient.log); requirements.txt lists its dependencies"; exit 1; }

.venv/.audit: TOOL := pip-audit
.venv/.lock: TOOL := uv
.venv/.audit .venv/.lock: FOLDER = $(@:.venv/.%=.venv/%)
.venv/.audit .venv/.lock:
	$(CHECK_PYTHON)
	rm -rf $(FOLDER)
	$(PYTHON) -m venv $(FOLDER)
	$(FOLDER)/bin/python -m pip -qq --disable-pip-version-check install $(TOOL)
	touch $@

define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "Prihod needs Python 3.11 or newer, which $(PYTHON) is not; try make PYTHON=python3.11" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
endef
