# Everything sets itself up: a virtual environment with locked versions, and as root the Debian packages that the
# tests of real servers need.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
STAMP := .venv/ready-$(shell cat requirements/dev.txt pyproject.toml | sha256sum | cut -c1-12)

.PHONY: demo test check soak prove bench docs clean packages deb deb-test

demo: $(STAMP)
	@$(BIN)/understudy demo

test: $(STAMP) packages check
	@script/test

check: $(STAMP)
	@script/check

soak: $(STAMP)  ## Random stories until you stop it, or SECONDS=n
	@$(BIN)/python script/soak.py --seconds $(or $(SECONDS),0)

prove: $(STAMP)  ## The whole pair, every event at once: hours
	@$(BIN)/python script/prove.py

bench: $(STAMP) packages
	@script/bench

lab: $(STAMP)  ## Nine hosts on this machine, with a protected pair; PROFILE=2s.  As root: docs/how-to/lab.md
	@script/packages lab
	@lab/lab.py image
	@lab/lab.py up --understudy $(or $(PROFILE),2s)
	@lab/lab.py state

lab-down:
	@lab/lab.py down

lab-test: $(STAMP)  ## The tests on those hosts: half an hour, as root
	@script/lab_test

lab-soak: $(STAMP)  ## There, anything happens to the data, ROUNDS=50 times; SEED=n for the same ones again
	@LAB_ROUNDS=$(or $(ROUNDS),50) $(if $(SEED),LAB_SEED=$(SEED)) script/lab_test -s -k test_rounds_of_anything

docs: $(STAMP)
	@$(BIN)/python script/generate_docs.py

deb: $(STAMP)  ## The Debian package, for DIST=bookworm, trixie (unless you say) or sid
	@script/build_deb --dist $(or $(DIST),trixie)

deb-test: $(STAMP) packages  ## Built, installed, upgraded, removed on a host of each of DISTS
	@script/deb_test

packages:
	@script/packages

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(STAMP): requirements/dev.txt pyproject.toml
	@script/bootstrap "$(PYTHON)" "$@"
