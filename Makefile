# `make demo` and `make test` do all set-up themselves. See docs/install.md.

# A NumPy in ~/.local would shadow the one GNU Radio was made for.
export PYTHONNOUSERSITE = 1

BIN = .venv/bin
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 $(BIN)/python -m pytest

.PHONY: help setup demo test test-slow lint bench photos results captures clean
help:
	@echo 'make setup      install what is missing (apt, pip), make .venv'
	@echo 'make demo       a photo, two questions, three SNRs -> output/demo'
	@echo 'make test       lint, then the tests'
	@echo 'make test-slow  the tests that take minutes'
	@echo 'make lint       ruff, mypy'
	@echo 'make bench      speed of decoder and modem beside their peers (uoisc benchmark has more)'
	@echo 'make results    the reduced evaluation -> output/results, docs/results.md (an hour; DATA=folder of the photos)'
	@echo 'make captures   the simulated recordings in captures/shipped anew'
	@echo 'make clean      remove caches and output, keep .venv'

setup:
	@scripts/setup.sh

demo: setup
	$(BIN)/uoisc demo --output output/demo

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	$(PYTEST) -m 'not slow and not hardware' -n $(WORKERS) --dist loadfile

test-slow: setup
	$(PYTEST) -m 'slow and not hardware'

bench: setup
	$(BIN)/uoisc benchmark ldpc
	$(BIN)/uoisc benchmark modem

# Photos are not part of this repository. A second run only computes what is missing.
DATA ?= ../shared/data
PLAN ?= semantic/evaluation/plans/reduced.yaml
photos:
	@test -d '$(DATA)/coco_vqa/images' && test -d '$(DATA)/imagenet_samples' || { \
	    echo "error: $(DATA): expected coco_vqa/images and imagenet_samples there; make results DATA=FOLDER says where the photos lie" >&2; \
	    exit 1; }

results: photos setup
	$(BIN)/uoisc evaluate $(PLAN) --output output/results --data animals=$(DATA)/coco_vqa --data imagenet=$(DATA)/imagenet_samples
	$(BIN)/uoisc plot output/results --report docs/results.md

captures: setup
	$(BIN)/python scripts/make_captures.py

clean:
	rm -rf output .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
