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
SOURCES = insightface_tf runtime data faces nets losses checkpoint inference evaluation training export serving tools \
	benchmarks scripts tests *.py

.PHONY: demo venv venv-tf1 test test-tf1 check dist format lock clean
.DEFAULT_GOAL := demo

venv: .venv/ready
venv-tf1: .venv-tf1/ready

.venv/ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 was found on the PATH; install one \
	or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	echo "error: PYTHON=$(PYTHON) is not Python 3.10 to 3.13, which TensorFlow 2.21 requires; pass \
	another: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual \
	environments; install its venv package (on Debian: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "installing TensorFlow 2.21 and its packages into .venv: 2.4 GB, one to ten minutes"
	.venv/bin/python $(PIP) --require-hashes -r requirements.lock
	@touch $@

.venv-tf1/ready: requirements-tf1.lock
	@test -n "$(PYTHON37)" || { echo "error: TensorFlow 1.15 needs Python 3.7 and none was found; \
	install one (pyenv install 3.7) or name it: make PYTHON37=/path/to/python3.7 test-tf1" >&2; exit 2; }
	@"$(PYTHON37)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 7))' || { \
	echo "error: PYTHON37=$(PYTHON37) is not Python 3.7, which TensorFlow 1.15 requires; pass \
	another: make PYTHON37=/path/to/python3.7 test-tf1" >&2; exit 2; }
	"$(PYTHON37)" -m venv .venv-tf1
	@echo "installing TensorFlow 1.15.5 and its packages into .venv-tf1: 1.2 GB, one to ten minutes"
	.venv-tf1/bin/python $(PIP) --require-hashes -r requirements-tf1.lock
	@touch $@

.venv/ready-export: .venv/ready requirements-export.txt
	.venv/bin/python $(PIP) -r requirements-export.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt requirements-export.txt
	.venv/bin/python $(PIP) -r requirements-dev.txt -r requirements-export.txt
	@touch $@

.venv-tf1/ready-dev: .venv-tf1/ready requirements-dev.txt
	.venv-tf1/bin/python $(PIP) -r requirements-dev.txt
	@touch $@

demo: .venv/ready-export
	@echo "+ source .venv/bin/activate"
	@set -e; export PATH="$(CURDIR)/.venv/bin:$$PATH"; set -x; \
	python data/synthetic.py --output_path datasets/demo --people_path datasets/demo_people; \
	python data/mx2tfrecords.py --bin_path datasets/demo/train.rec --idx_path datasets/demo/train.idx \
		--tfrecords_file_path datasets/demo/tfrecords; \
	python3 train_nets.py --config configs/demo.yaml; \
	python eval_ckpt_file.py --ckpt_path output/demo/ckpt --eval_db_path datasets/demo \
		--eval_datasets lfw cfp_fp --json output/demo/eval.json; \
	python export_model.py --ckpt_file output/demo/ckpt/InsightFace_iter_900.ckpt --file_format onnx \
		--file_name output/demo/export/demo.onnx --overwrite yes; \
	rm -f output/demo/faces.db*; \
	python facebank.py enrol --bank output/demo/faces.db --model output/demo/export/demo.onnx \
		--images datasets/demo_people/enrolled --detector none; \
	python facebank.py calibrate --bank output/demo/faces.db --model output/demo/export/demo.onnx \
		--pairs datasets/demo/lfw.bin; \
	python facebank.py identify --bank output/demo/faces.db --model output/demo/export/demo.onnx \
		--images datasets/demo_people/photos --detector none --far 0.01
	@echo "report: $(CURDIR)/output/demo/report.html"

test: .venv/ready-dev
	.venv/bin/python -m pytest -n $(WORKERS)

test-tf1: .venv-tf1/ready-dev
	.venv-tf1/bin/python -m pytest -n $(WORKERS)

check: .venv/ready-dev .venv-tf1/ready dist
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell
	.venv/bin/mypy
	.venv/bin/python -m tools.code_figures --check
	.venv/bin/python -m compileall -q $(SOURCES)
	.venv-tf1/bin/python -m compileall -q $(SOURCES)

dist: .venv/ready-dev
	rm -rf dist
	.venv/bin/python -m hatchling build
	.venv/bin/python -m twine check --strict dist/*

format: .venv/ready-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The lock files pin every package of requirements.txt by hash, for all platforms.
LOCK = .venv/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-header --no-emit-index-url
lock: .venv/ready-dev
	$(LOCK) --python-version 3.10 --universal requirements.txt -o requirements.lock
	$(LOCK) --python-version 3.7 --python-platform x86_64-manylinux_2_28 requirements.txt \
		-o requirements-tf1.lock

clean:
	rm -rf .venv .venv-tf1 datasets/demo output/demo
