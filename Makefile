# All commands for contributors; `make` alone lists them. They need Python >= 3.11, make and git.

PYTHON ?= python3

ifeq ($(OS),Windows_NT)
  SCRIPTS := Scripts
  EXE := .exe
else
  SCRIPTS := bin
  EXE :=
endif

BIN := .venv/$(SCRIPTS)
STAMP := .venv/stamp
LOCAL_UV := .uv/$(SCRIPTS)/uv$(EXE)
ifeq ($(shell command -v uv 2>/dev/null),)
  UV := $(LOCAL_UV)
  UV_MADE := $(LOCAL_UV)
else
  UV := uv
  UV_MADE :=
endif
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make requirements"

TOO_OLD := batchrun needs Python 3.11 or newer; name one: make setup PYTHON=python3.13
CHECK_PYTHON = "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(TOO_OLD)")'

# Use the installed Python, never download one.
export UV_PYTHON_DOWNLOADS := never

# A .venv that was moved or copied, or whose Python is gone, does not find this checkout and is created again.
FINDS_CHECKOUT := import os, batchrun; print(os.path.samefile(os.path.dirname(batchrun.__file__), "batchrun"))
ifneq ($(shell $(BIN)/python -I -c '$(FINDS_CHECKOUT)' 2>/dev/null),True)
  $(shell rm -f $(STAMP))
endif

.NOTPARALLEL:
.PHONY: help setup demo test check format-check lint types imports format wheel check-wheel upgrade requirements clean bench bench-million reliability crash batch-crash public-servers faults scale-faults soak

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) $(UV_MADE) ## create .venv from the pinned, hashed requirements (again only if they changed)

demo: setup ## translate and summarise the examples with the simulated provider, into out/
	@mkdir -p out && cp examples/udhr.jsonl examples/passages.jsonl out && cp examples/demo.toml out/batchrun.toml
	@printf '\n$$ batchrun -i udhr.jsonl -p translate --set language=French -o udhr.fr.jsonl\n'
	@cd out && ../$(BIN)/batchrun -i udhr.jsonl -p translate --set language=French -o udhr.fr.jsonl --fresh
	@printf '\n$$ batchrun -i passages.jsonl -p summarize -o passages.summary.jsonl\n'
	@cd out && ../$(BIN)/batchrun -i passages.jsonl -p summarize -o passages.summary.jsonl --fresh
	@for file in udhr.fr passages.summary; do printf '\nout/%s.jsonl\n' "$$file"; $(BIN)/python examples/side_by_side.py "out/$$file.jsonl"; done
	@printf '\nnext: batchrun app translate udhr.jsonl\n      (here: cd out && ../$(BIN)/batchrun app translate udhr.jsonl)\n'

check: format-check lint types imports reliability test ## all checks of CI: format, lint, types, imports, all tests

format-check: setup
	$(BIN)/ruff format --check --quiet .

lint: setup
	$(BIN)/ruff check --quiet --output-format concise .

types: setup
	$(BIN)/basedpyright --warnings

imports: setup
	$(BIN)/lint-imports --no-logo --no-cache

test: setup ## run the quick tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

bench: setup ## print the table of docs/performance.md, in less than ten minutes on a quiet machine (needs gcc)
	@$(BIN)/python benchmarks $(if $(INTO),--into $(INTO))

bench-million: setup ## the same about scale, with a million rows
	@$(BIN)/python benchmarks $(if $(INTO),--into $(INTO)) million

reliability: setup ## run the slow tests: docs/reliability.md, and the app on a terminal
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

crash: setup ## kill the program 300 times and account for every row (about 15 minutes)
	$(BIN)/python tests/reliability/campaign_crash.py

batch-crash: setup ## kill a run with batches at every write and call, lose every answer once (about 15 minutes)
	$(BIN)/python tests/reliability/campaign_batch.py

public-servers: setup ## run live and with batches against a third-party server (needs the npm registry)
	$(BIN)/python tests/reliability/public_server.py

faults: setup ## run with all faults of the simulated provider at once, with five seeds
	$(BIN)/python tests/reliability/campaign_faults.py

scale-faults: setup ## kill, freeze and interrupt senders of `--processes` and `--senders`, workers of `--workers ray`, and nodes (about 40 minutes)
	$(BIN)/python tests/reliability/campaign_scale.py processes
	$(BIN)/python tests/reliability/campaign_scale.py ray
	$(BIN)/python tests/reliability/campaign_ray.py

soak: setup ## run 100,000 rows, and 10,000 of 100 kB: memory, descriptors, threads and throughput
	$(BIN)/python tests/reliability/campaign_soak.py
	$(BIN)/python tests/reliability/campaign_soak.py 10000 100000

format: setup ## format the source and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: setup ## build the source archive, and the wheel from it, into dist/
	rm -rf dist
	$(UV) build --quiet --no-build-isolation --python $(BIN)/python

check-wheel: wheel ## install with each command of the README, from this checkout, and run it in another directory
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	export UV_CONSTRAINT="$$PWD/requirements/runtime.txt" UV_PYTHON="$$PWD/$(BIN)/python"; \
	grep '^\$$ uv tool install ' README.md | sed 's/^\$$ uv //; s/ *#.*//' \
	  | sed "s|git+https://[^ ]*|git+file://$$PWD|" >"$$dir/lines"; \
	test "$$(wc -l <"$$dir/lines")" -eq 3; \
	while read -r line; do \
	  export UV_TOOL_DIR="$$dir/tools" UV_TOOL_BIN_DIR="$$dir/bin"; rm -rf "$$dir/tools" "$$dir/bin"; \
	  $(UV) $$line --quiet; \
	  (cd "$$dir"; bin/batchrun --help >help.txt; bin/batchrun prompts >prompts.txt; \
	   grep -q translate prompts.txt; grep -q summarize prompts.txt); \
	  echo "uv $$line: it runs, and its prompts are found"; \
	done <"$$dir/lines"

upgrade: COMPILE += --upgrade
upgrade: requirements ## update every pin

requirements: $(UV_MADE) ## update the pins in requirements/ to pyproject.toml
	$(COMPILE) --group uv -o requirements/uv.txt
	$(COMPILE) --extra data --extra documents --extra fast --extra otel pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --extra data --extra documents --extra fast --extra otel --group dev --constraints requirements/runtime.txt pyproject.toml -o requirements/dev.txt

clean: ## remove environments, caches and build results
	rm -rf .venv .uv .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements/dev.txt | $(UV_MADE)
	@$(CHECK_PYTHON)
	@[ -f $(STAMP) ] || { rm -rf .venv && $(UV) venv --quiet --python "$$("$(PYTHON)" -c 'import sys; print(sys.executable)')" .venv; }
	@$(UV) pip sync --quiet --python .venv --require-hashes --compile-bytecode requirements/dev.txt
	@$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --compile-bytecode --editable .
	@touch $(STAMP)
	@echo "ready: $(BIN)/batchrun"

# Install uv from the registry if the machine has none.
$(LOCAL_UV): requirements/uv.txt
	@$(CHECK_PYTHON)
	@rm -rf .uv
	@"$(PYTHON)" -m venv .uv
	@.uv/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $(LOCAL_UV)
