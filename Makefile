# make run          start the server on its defaults: Maildirs under ./mail, LMTP on 127.0.0.1:8024
# make test         all tests; those whose peers or rights this machine lacks are skipped
# make unit         the tests that need no peers
# make check        style and types
# make format       lay the code out
# make coverage     the tests that need no peers, and which lines they leave out
# make test-oldest  the same tests with the oldest versions that pyproject.toml allows
# make bench        how fast it is here, beside Dovecot if that is installed; make bench BENCH=--help
# make clean        remove the virtual environments

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := build/oldest
UNIT := not interop and not faults and not packaging
# Each processor takes its part of those.  Peers have ports and disks that cannot be shared; their
# folders are not even read.
ASIDE := -n auto --dist worksteal --ignore=tests/interop --ignore=tests/faults
PIP := -m pip --disable-pip-version-check -q

# What is compiled stays so: each process of the tests need not do it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test unit check format coverage test-oldest bench clean

run: $(VENV)/run.stamp
	exec $(BIN)/twistd -n --pidfile= lmtp

# All of them are run, whatever became of the first; status 5 says that PYTEST leaves nothing of a part.
# Where it chooses by marker itself, it may choose those with peers: one after another, then.
test: $(VENV)/test.stamp
ifneq ($(filter -m%,$(PYTEST)),)
	$(BIN)/python -m pytest $(PYTEST)
else
	@failed=0; \
	part() { echo "$$*"; "$$@" || [ $$? -eq 5 ] || failed=1; }; \
	part $(BIN)/python -m pytest $(ASIDE) -m '$(UNIT)' $(PYTEST); \
	part $(BIN)/python -m pytest -m 'not ($(UNIT))' $(PYTEST); \
	exit $$failed
endif

unit: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(ASIDE) -m '$(UNIT)' $(PYTEST)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

coverage: $(VENV)/test.stamp
	$(BIN)/coverage run -m pytest -m '$(UNIT)' $(PYTEST)
	$(BIN)/coverage report

test-oldest: $(OLDEST)/test.stamp
	$(OLDEST)/bin/python -m pytest $(ASIDE) -m '$(UNIT)' $(PYTEST)
	$(OLDEST)/bin/python -m pytest tests/pop3/test_service.py  # twisted.mail as it was, too

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) $(OLDEST)

# A stamp says that everything was installed; a broken install leaves none, and is made anew.  Each
# holds what the one before it does, so that `make run` need not wait for the tools of the tests.
$(VENV)/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'lmtpsvc needs Python 3.11 or newer, and `$(PYTHON)` is not;' \
	       'name another: make $(MAKECMDGOALS) PYTHON=python3.13' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo '`$(PYTHON)` cannot make virtual environments;' \
	       'on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/run.stamp: $(VENV)/venv.stamp pyproject.toml
	$(BIN)/python $(PIP) install -e .
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	$(BIN)/python $(PIP) install -e '.[bench]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	$(BIN)/python $(PIP) install -e '.[test]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/test.stamp
	$(BIN)/python $(PIP) install -e '.[test,dev]'
	@touch $@

$(OLDEST)/test.stamp: $(VENV)/venv.stamp pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(PYTHON) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(word.split("[")[0].split(">=")[0] + "==" + word.split(">=")[1] for word in project["dependencies"] + project["optional-dependencies"]["sql"]), sep="\n")' > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python $(PIP) install -c $(OLDEST)/constraints.txt -e '.[test]'
	@touch $@
