# make demo   train a small K3DN on dual-pixel pairs made from photographs, and show what it restores
# make test   run the tests
# Both set up a virtual environment first, once. See `make help`.

VENV   ?= .venv
# A Python that BasicSR supports (3.10 to 3.12) where there is one, else whatever python3 is.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
            "$$p" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
            && echo "$$p" && exit; done; echo python3)
# How torch is installed. PyPI's is the CUDA build for Linux; for the smaller CPU build:
#   make demo TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH       ?= torch==2.13.0
TORCH_INDEX ?=

PIP   = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
STAMP = $(VENV)/.ready
DEV   = $(VENV)/.dev-ready
APP   = $(VENV)/.app-ready
# make test COVERAGE=1 also prints which share of the package's lines the tests run; the suite takes longer then.
COVERAGE ?=
COVERED   = $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

.PHONY: help setup demo app test test-app lint docs doctor clean

help:
	@sed -n '1,3s/^# //p' Makefile
	@echo "make setup   the virtual environment alone ($(VENV), from $(PYTHON))"
	@echo "make app     restore photographs on a page in the browser (brings gradio)"
	@echo "make test-app  test that page in Chromium"
	@echo "make lint    check style (ruff) and types (basedpyright)"
	@echo "make docs    build the documentation site into site/, strictly"
	@echo "make doctor  what is installed, missing or broken"
	@echo "make clean   remove the virtual environment and the demo's data and results"

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml requirements/build.txt requirements/pinned.txt requirements/constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "k3dn_plugin needs Python 3.10 or later, found %s: install one and give it as make PYTHON=python3.12" % sys.version.split()[0])'
	@echo "setting up $(VENV) with $(PYTHON) (some minutes, once)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	$(PIP) $(TORCH) $(TORCH_INDEX)
	$(PIP) -r requirements/build.txt
	$(PIP) --no-build-isolation -r requirements/pinned.txt -c requirements/constraints.txt
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $(STAMP)

demo: setup
	$(VENV)/bin/python tools/demo.py

app: $(APP)
	$(VENV)/bin/python tools/app.py

test-app: $(APP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/bridges/test_gradio_page.py

test: $(if $(COVERAGE),$(DEV),setup)
	# One thread a process: the processes are the parallelism.
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto $(COVERED)

$(DEV): $(STAMP) requirements/dev.txt requirements/docs.txt
	$(PIP) -r requirements/dev.txt -c requirements/constraints.txt
	@touch $(DEV)

$(APP): $(STAMP) requirements/app.txt
	$(PIP) -r requirements/app.txt -c requirements/constraints.txt
	@touch $(APP)

lint: $(DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

docs: $(DEV)
	$(VENV)/bin/python -m mkdocs build --strict

doctor: setup
	$(VENV)/bin/python tools/doctor.py

clean:
	rm -rf $(VENV) datasets/demo experiments/k3dn_demo results/k3dn_demo
