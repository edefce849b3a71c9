# Every path is relative and every tool runs as `python -m`, so that the checkout may live in any folder.
PYTHON   = python3
PORT     =
PIP_ARGS =
ONLY     =
JOBS     = 2
ROW      =
SMALL    =
FOLDER   =
KIND     =
IN_VENV  = .venv/bin/python
PYTEST   = OMP_NUM_THREADS=1 $(IN_VENV) -m pytest -q

# The install leaves compiling to the first import, which has to keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help lab test test-fast test-nightly test-matrix test-colab test-processors test-mutants build site book run-times bench study clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

lab: .venv/installed-lab  ## open your copy of the course, my-course, in JupyterLab (PORT=8899 chooses the port)
	@$(IN_VENV) -m rpm_tutorial.course.cli doctor
	@exec $(IN_VENV) -m rpm_tutorial.course.cli lab $(if $(FOLDER),"$(FOLDER)") $(if $(PORT),--port $(PORT))

# A file's tests stay in one process; the longest files come first.
test: .venv/installed-test  ## run the tests: library, lessons, pipeline, browser (JOBS=2 processes)
	@$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not nightly"

test-fast: .venv/installed-test  ## the edit loop: no lesson, no browser, nothing slow
	@$(PYTEST) -n $(JOBS) -m "not slow and not notebook and not browser and not nightly" tests

test-nightly: .venv/installed-nightly  ## what make test leaves out, then the four tables below (hours; quiet machine)
	@$(PYTEST) -m nightly
	@$(MAKE) -k test-matrix test-colab test-processors test-mutants

test-matrix: .venv/installed-nightly  ## the fast tests beside oldest and newest versions (ROW=oldest for one)
	@$(IN_VENV) -m nox $(if $(ROW),--session $(ROW))

test-colab: .venv/installed-test  ## every lesson beside Colab's kind of packages, older and newer (KIND=tested for one)
	@$(IN_VENV) tools/colab.py --write $(if $(KIND),"$(KIND)")

test-processors: .venv/installed-test  ## every notebook on other arithmetic (KIND=plain ONLY=04 for one of both)
	@$(IN_VENV) tools/processors.py --write $(KIND) --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))

test-mutants: .venv/installed-nightly  ## plant small mistakes in each module, count those that the fast tests catch (ONLY=priors for one)
	@$(IN_VENV) tools/mutants.py $(ONLY)

build: .venv/installed-test  ## make and execute the notebooks from their .py sources (ONLY=02 for one)
	@$(IN_VENV) tools/build_notebooks.py $(ONLY)
	@$(IN_VENV) tools/teaching.py
	@$(IN_VENV) tools/launch_links.py

site: .venv/installed-site  ## make the site in build/site from the executed notebooks, to be read without a network
	@$(IN_VENV) -m sphinx -q -W --keep-going -a -E -b html -d build/doctrees docs build/site
	@echo "Open build/site/index.html"

book: .venv/installed-test site  ## the site, and the course as one PDF in it
	@$(IN_VENV) tools/book.py

run-times: .venv/installed-test  ## run every lesson and note what it took, for the site (quiet machine)
	@$(PYTEST) notebooks --processor own --run-times docs/run_times.csv

bench: .venv/installed-bench  ## measure dataset_evidence against others and the machine's limit (40 minutes, quiet machine)
	@$(IN_VENV) bench/evidence.py

study: .venv/installed-test  ## train what the study reports on, a row each (hours; SMALL=1 rehearses in a minute)
	@$(IN_VENV) tools/study.py $(if $(SMALL),--small) $(if $(ONLY),--only $(ONLY))

clean:  ## remove the environment and the caches
	rm -rf .venv .mypy_cache .nox .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

STAMPS = $(addprefix .venv/installed-,lab test site bench nightly)

# A renamed checkout takes its .venv along, with the old folder's absolute paths in it: then no stamp counts.
ifneq ($(shell cat .venv/folder 2>/dev/null),$(CURDIR))
.PHONY: $(STAMPS)
endif

# A stamp is written last, so that an interrupted or failed install is never taken for a finished one.
$(STAMPS): pyproject.toml requirements-tested.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "$(PYTHON) not found: install Python 3.11 or newer, or name yours: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" tools/environment.py $(@:.venv/installed-%=%) $(PIP_ARGS)
	@pwd -P > .venv/folder
	@touch .venv/installed-lab $@
