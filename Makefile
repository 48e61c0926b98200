# Two commands do everything on a fresh machine: make demo, make test.
.PHONY: demo test test-all lint wheel system-packages clean
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

demo: $(STAMP)
	@$(BIN)/python -m tipr demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q --durations=25 -m "not slow" $(ARGS)

test-all: $(STAMP) lint
	$(BIN)/python -m pytest -q --durations=25 $(ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check src tests benchmarks
	$(BIN)/python -m ruff format --check src tests benchmarks
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

$(BIN)/python:
	"$(PYTHON)" -m venv .venv

# pip reads its own environment variables and configuration: a mirror or a wheel folder needs no change here
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing tipr and its dependencies into .venv (once, a few minutes) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -c constraints.txt -w dist .

system-packages:
	apt-get install -y --no-install-recommends chromium fonts-noto-cjk

clean:
	rm -rf .venv build dist demo
