# `make demo` and `make test` set up everything they need: nothing else has to be typed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made

.PHONY: venv demo install uninstall deb test test-quick test-host fuzz simulate clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e .
	touch $@

demo: $(STAMP)
	$(BIN)/escra demo

# Onto this host, as root; what can be set is explained in the script.
export EXTRAS PYTHON PREFIX DESTDIR BINDIR SHAREDIR ZSHDIR UNITDIR PURGE

install uninstall:
	systemd/install.sh $@

deb:
	@VERSION=$(VERSION) systemd/debian/build.sh

test: $(STAMP)
	$(BIN)/pytest --ignore=tests/host

test-quick: $(STAMP)
	$(BIN)/pytest --ignore=tests/host -m 'not kernel and not docker'

test-host: $(STAMP)
	$(BIN)/pytest tests/host

# Coverage-guided, for hours if you like: make fuzz TARGET=config INPUTS=50000000
INPUTS ?= 1000000
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) $(TARGET)

$(VENV)/.fuzz: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group fuzz
	touch $@

# Another 10,000 runs, one run again, a planted fault: make simulate SEEDS=10000; SEED=7; PLANT=host-forgotten
SEEDS ?= 2000
simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(PLANT),--plant $(PLANT))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
