# make setup   .venv with the pinned versions of constraints.txt; extra options for pip go into PIP_ARGS
# make demo    train, measure and report a model of handwritten digits and compress some with it, in at most three minutes
# make test    every test that is not slow
# make check   lint, format and types
# make docs    the documentation, as build/docs/index.html; warnings are errors

PYTHON ?= python3
PIP_ARGS ?=

.PHONY: setup demo test check docs

setup: .venv/.installed

# Once: the stamp is younger than what it was made from until one of them changes.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	.venv/bin/ancestral train agave --data digits --out runs/demo --force --minutes 1.2
	.venv/bin/ancestral evaluate runs/demo
	.venv/bin/ancestral sample runs/demo -n 32 --with-image
	.venv/bin/ancestral compress runs/demo --force
	.venv/bin/ancestral decompress runs/demo/test.anc --out runs/demo/decompressed --force
	.venv/bin/ancestral verify runs/demo/test.anc
	.venv/bin/ancestral report runs/demo

test: setup
	.venv/bin/python -m pytest -q -m "not slow" -n auto --maxprocesses 4 --dist worksteal

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict ancestral

docs: setup
	.venv/bin/python -m sphinx -E -W --keep-going -q docs build/docs
