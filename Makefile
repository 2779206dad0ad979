# make demo | test | test-tf1 | check: each sets up what it needs and says each command it runs.
# PYTHON= and PYTHON37= name other interpreters; by default the newest fitting one is found.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && \
	{ echo $$p; break; }; done)
PYTHON37 ?= $(shell for p in python3.7 "$$HOME"/.pyenv/versions/3.7*/bin/python3.7; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 7))' 2>/dev/null && \
	{ echo "$$p"; break; }; done)
PIP = -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
SOURCES = runtime data faces nets losses checkpoint inference evaluation training tools benchmarks scripts tests *.py

.PHONY: demo venv venv-tf1 test test-tf1 check format clean
.DEFAULT_GOAL := demo

venv: .venv/ready
venv-tf1: .venv-tf1/ready

.venv/ready: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 was found on the PATH; install one \
	or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual \
	environments; install its venv package (on Debian: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -r requirements.txt
	@touch $@

.venv-tf1/ready: requirements.txt
	@test -n "$(PYTHON37)" || { echo "error: TensorFlow 1.15 needs Python 3.7 and none was found; \
	install one (pyenv install 3.7) or name it: make PYTHON37=/path/to/python3.7 test-tf1" >&2; exit 2; }
	"$(PYTHON37)" -m venv .venv-tf1
	.venv-tf1/bin/python $(PIP) -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	.venv/bin/python $(PIP) -r requirements-dev.txt
	@touch $@

.venv-tf1/ready-dev: .venv-tf1/ready requirements-dev.txt
	.venv-tf1/bin/python $(PIP) -r requirements-dev.txt
	@touch $@

demo: .venv/ready
	@echo "+ source .venv/bin/activate"
	@set -e; export PATH="$(CURDIR)/.venv/bin:$$PATH"; set -x; \
	python data/synthetic.py --output_path datasets/demo; \
	python data/mx2tfrecords.py --bin_path datasets/demo/train.rec --idx_path datasets/demo/train.idx \
		--tfrecords_file_path datasets/demo/tfrecords; \
	python3 train_nets.py --config configs/demo.yaml; \
	python eval_ckpt_file.py --ckpt_path output/demo/ckpt --eval_db_path datasets/demo \
		--eval_datasets lfw cfp_fp --json output/demo/eval.json
	@echo "report: $(CURDIR)/output/demo/report.html"

test: .venv/ready-dev
	.venv/bin/python -m pytest -n $(WORKERS)

test-tf1: .venv-tf1/ready-dev
	.venv-tf1/bin/python -m pytest -n $(WORKERS)

check: .venv/ready-dev .venv-tf1/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell
	.venv/bin/python -m compileall -q $(SOURCES)
	.venv-tf1/bin/python -m compileall -q $(SOURCES)

format: .venv/ready-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-tf1 datasets/demo output/demo
