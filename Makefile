# Every target sets up what it needs, in .venv, once. `make` alone lists the targets.
PYTHON ?= python3
IN_VENV := .venv/bin/python
PIP_INSTALL := $(IN_VENV) -m pip -qq --disable-pip-version-check install

# Two makes in one clone take turns at setting up. Where there is no flock, start them one after the other.
ONE_AT_A_TIME := $(if $(shell command -v flock),flock .)
SET_UP := +$(ONE_AT_A_TIME) $(MAKE) --no-print-directory
# Goes on without it: what can't run then is for `python -m tests` to say, and to judge.
SET_UP_MYSQLCLIENT := $(SET_UP) .venv/.mysql 2>/dev/null || true

.SILENT:
.PHONY: help run test test-mysql test-all faults bench lint messages audit lock clean

help: ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start web, worker and scheduler, and say what to try; Ctrl-C stops them
	$(SET_UP) .venv/.base $(if $(filter mysql:%,$(DATABASE_URL)),.venv/.mysql)
	exec $(IN_VENV) -m devtools.run

test: DATABASES := mariadb sqlite
test: ## the whole suite, on SQLite and on MariaDB with Redis; TESTS="-k replay -x" is for pytest
test-mysql: DATABASES := mysql
test-mysql: ## the whole suite on MySQL with Redis; TESTS as above
test-all: DATABASES := mysql mariadb sqlite
test-all: ## both of them, two databases at a time
test test-mysql test-all:
	$(SET_UP) .venv/.dev
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers $(filter-out sqlite,$(DATABASES)) redis mysqlclient chromium promtool
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m tests $(DATABASES) -- $(TESTS)

faults: ## break everything on purpose and look for lost money; SCENARIO= SEED= MINUTES= JOBS= NAME=, PLANTED=1 plants bugs
	$(SET_UP) .venv/.base
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers mariadb redis mysqlclient libfaketime
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m faults $(SCENARIO) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(NAME),--name $(NAME)) $(if $(SEEDED_BUGS),--seeded-bugs)

bench: ## measure how fast it is, against the usual designs; QUICK=1 takes 3 to 4 minutes, BENCH="latency" narrows it
	$(SET_UP) .venv/.base
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers mariadb redis mysqlclient wrk
	$(SET_UP_MYSQLCLIENT)
	$(IN_VENV) -m bench $(BENCH) $(if $(QUICK),--quick)

screenshots: ## take the pictures in docs/screenshots anew, of a house started for that, with Chromium
	$(SET_UP) .venv/.dev
	$(ONE_AT_A_TIME) $(IN_VENV) -m tests.harness.servers chromium
	$(IN_VENV) -m tests.screenshots

lint: ## ruff, mypy and the import rules
	$(SET_UP) .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

messages: ## bring the Russian catalogue in line with the code, and say what is left to translate
	$(SET_UP) .venv/.dev
	$(IN_VENV) -m tests.translations

audit: ## look for known vulnerabilities in what is pinned; exits 2 where nobody can say
	$(SET_UP) .venv/.audit
	.ci/audit

lock: ## pin requirements/*.in anew in requirements/*.txt
	$(SET_UP) .venv/.lock
	for name in base mysql observing dev; do \
		.venv/lock/bin/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
			--no-header --no-annotate --generate-hashes requirements/$$name.in -o requirements/$$name.txt || exit; \
	done

clean: ## remove .venv and every cache, but not the data in .data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of these files says: this much is installed, as it stood in requirements/ then. Whatever installs takes .base away
# until it is done, so that an interrupted set-up, by Ctrl-C or kill -9, leaves none, and .venv is made anew: pip would
# take a package whose files are written in part for installed. After an ordinary failure .base is put back.
INSTALL = trap 'exit 130' HUP INT TERM; \
	echo "Installing $< into .venv"; \
	test ! -e .venv/.base || mv .venv/.base .venv/.aside; \
	$(PIP_INSTALL) -r $<; status=$$?; \
	test $$status -ge 128 || test ! -e .venv/.aside || mv .venv/.aside .venv/.base; \
	test $$status -eq 0 && touch $@

.venv/.base: requirements/base.txt
	test -e $@ || { $(CHECK_PYTHON); \
		test ! -e .venv/bin || echo "The set-up was interrupted; it is done anew"; \
		echo "Making .venv"; \
		rm -rf .venv/bin .venv/include .venv/lib .venv/lib64 .venv/share .venv/.aside .venv/.dev .venv/.mysql; \
		$(PYTHON) -m venv .venv; }
	$(INSTALL)

.venv/.dev: requirements/dev.txt .venv/.base
	$(INSTALL)

.venv/.mysql: requirements/mysql.txt .venv/.base
	{ $(INSTALL); } 2>.venv/mysqlclient.log || { \
		echo "!! mysqlclient can't be built (.venv/mysqlclient.log); requirements.txt says what it needs"; exit 1; }

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
