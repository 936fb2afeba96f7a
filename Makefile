# make run [CONFIG=...]   serve a site (sets everything up first)
# make test               run all tests (sets everything up first)
# make check              lint, formatting, types
# make bench              measure speed against references; takes a few minutes
SHELL := /bin/bash
CONFIG ?= configs/mixed_protocol_config.json
VENV ?= .venv
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: run test check bench clean packages-run packages-test packages-bench

run: packages-run $(VENV)/.installed
	@exec $(VENV)/bin/dertwin run -c $(CONFIG) --fallback pty

test: packages-test $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

check: packages-run $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	cd examples && $(abspath $(VENV))/bin/mypy --config-file ../pyproject.toml --explicit-package-bases .

bench: packages-bench $(VENV)/.installed-dev
	PYTHONPATH=tests $(VENV)/bin/python tests/benchmark/run.py --markdown docs/performance.md

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c '$(NEW_ENOUGH)' || \
	  { echo "dertwin needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# Each word is TEST=PACKAGE: the package is installed when the command TEST, or the file TEST, is missing.
RUN_PACKAGES := socat=socat venv=python3-venv
packages-run: NEEDED := $(RUN_PACKAGES)
packages-test: NEEDED := $(RUN_PACKAGES) mbpoll=mbpoll umockdev-wrapper=umockdev udevadm=udev
packages-bench: NEEDED := $(RUN_PACKAGES) gcc=gcc /usr/include/modbus/modbus.h=libmodbus-dev
packages-run packages-test packages-bench:
	@missing=""; \
	for need in $(NEEDED); do \
	  test="$${need%%=*}"; \
	  case "$$test" in \
	    venv) [ -x $(VENV)/bin/python ] || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null ;; \
	    /*) [ -e "$$test" ] ;; \
	    *) command -v "$$test" >/dev/null ;; \
	  esac || missing="$$missing $${need#*=}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	echo "installing system packages:$$missing"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$sudo apt-get install -y -qq $$missing >/dev/null 2>&1 || \
	    { $$sudo apt-get update -qq && $$sudo apt-get install -y -qq $$missing >/dev/null; } && exit 0; \
	fi; \
	echo "missing system packages:$$missing" >&2; \
	echo "install them as an administrator, e.g.: sudo apt-get install$$missing" >&2; exit 1
