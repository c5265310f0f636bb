# `make demo` and `make test` set up whatever they need and re-use what is there.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# torch's threads sleep between two operations: spinning, as they do by default, they take cores from the threads
# that they wait for.
export OMP_WAIT_POLICY ?= passive

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
CORE := bindings/python/python
CAPTIONER := bindings/captioner/python

# A file runs in one process, since what is made for all of its tests is made once.
PYTEST := $(BIN)/pytest --quiet --numprocesses 2 --dist loadfile

RUST_EXAMPLES := $(basename $(notdir $(wildcard examples/*.rs)))
PYTHON_EXAMPLES := examples/train_clip.py examples/full_vs_reduced.py examples/any_torch.py

.PHONY: help
help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

# --- set-up ---------------------------------------------------------------------------------

.PHONY: system
system:
	@.ci/check-system $(PYTHON)

$(VENV)/bin/pip: | system
	$(PYTHON) -m venv $(VENV)

# torch-sys finds libtorch through the link (.cargo/config.toml).
$(VENV)/.run: requirements.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	cd $(VENV) && ln -sfn lib/python*/site-packages/torch libtorch
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: build
build: $(VENV)/.run ## Sets up, builds the Python packages and puts the command on .venv/bin.
	cargo build --package tldr-loader-python --package tldr-loader-captioner-python
	install -m 755 $(TARGET)/debug/lib_native.so $(CORE)/tldr_loader/_native.abi3.so
	install -m 755 $(TARGET)/debug/lib_captioner.so $(CAPTIONER)/tldr_loader_captioner/_captioner.abi3.so
	printf '%s\n' $(CURDIR)/$(CORE) $(CURDIR)/$(CAPTIONER) > $$(echo $(VENV)/lib/python*/site-packages)/tldr_loader.pth
	printf '#!%s\nimport sys\n\nfrom tldr_loader._command import main\n\nsys.exit(main())\n' $(CURDIR)/$(BIN)/python > $(BIN)/tldr-loader
	chmod 755 $(BIN)/tldr-loader

# --- the two commands -----------------------------------------------------------------------

.PHONY: demo
demo: build ## Trains a CLIP model on full, random and reduced streams: 4 minutes after the build.
	$(BIN)/python examples/full_vs_reduced.py --demo --out demo

.PHONY: test
test: format lint docs test-rust test-python smoke ## Runs every check but the next one.

.PHONY: test-loops
test-loops: build $(VENV)/.loops ## Runs the training loops of other frameworks, with the real ones.
	$(PYTEST) --durations 10 bindings/python/tests/loops

# --- longer runs ----------------------------------------------------------------------------

.PHONY: compare
compare: build ## Runs every arm of the comparison, three seeds (hours).
	$(BIN)/python examples/full_vs_reduced.py --out compare --jobs 2

.PHONY: bench
bench: $(VENV)/.run ## Runs the benchmarks.
	cargo bench --workspace

.PHONY: bench-select
bench-select: $(VENV)/.run ## Counts decisions per second on one core.
	cargo bench --bench select

.PHONY: bench-reader
DATA := $(or $(TLDR_DATA),../shared/data)/openstax
bench-reader: build $(VENV)/.bench ## Races the reader against its ceiling, open_clip, SPDL and thread pools.
	$(BIN)/python benches/reader.py $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))

.PHONY: bench-package
bench-package: build $(VENV)/.dev ## Races the package that make built with open_clip, and nothing else.
	$(BIN)/python benches/reader.py --package $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))

.PHONY: bench-epochs
bench-epochs: $(VENV)/.run ## Measures first and second epochs against what they must cost.
	cargo bench --package tldr-captioner --bench epochs -- $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))
	cargo bench --package tldr-captioner --bench epochs -- --encode 4000 $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))
	cargo bench --package tldr-captioner --bench epochs -- --captioner vit-s --samples 2000 --rounds 3 $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))

.PHONY: bench-lanes
bench-lanes: $(VENV)/.run ## Measures what 8 lanes cost beside 4, in time and memory.
	cargo bench --bench lanes

.PHONY: soak
soak: $(VENV)/.run ## Sends two million samples through the pipeline and watches its memory (minutes).
	cargo bench --bench soak

.PHONY: bench-captioner
bench-captioner: $(VENV)/.bench ## Races the captioner against transformers.
	$(BIN)/python benches/captioner.py

.PHONY: bench-copies
bench-copies: build ## Counts the distinct scenes that plans of a corpus of copies keep (5 minutes).
	$(BIN)/python benches/copies.py

.PHONY: bench-scorer
bench-scorer: build $(VENV)/.dev ## Measures what a scorer of one's own costs the training step (2 minutes).
	$(BIN)/python benches/scorer.py

.PHONY: bench-gpu
bench-gpu: build $(VENV)/.dev ## Measures captioner, loader and training on the GPU of this machine (11 minutes).
	$(BIN)/python benches/gpu/speed.py --out $(TARGET)/bench-gpu/speed.jsonl $(if $(wildcard $(DATA)),--data $(abspath $(DATA)))
	$(BIN)/python benches/gpu/quality.py --out $(TARGET)/bench-gpu/quality.jsonl

.PHONY: bench-previews
bench-previews: build $(VENV)/.dev ## Measures what scaled decoding does to signals and pixels (5 minutes).
	$(BIN)/python benches/previews.py --data $(addprefix $(or $(TLDR_DATA),../shared/data)/,openstax fsac)

.PHONY: study-alignment
EMOJI := $(or $(TLDR_DATA),../shared/data)/emoji-train
study-alignment: $(VENV)/.run ## Compares normalisations of the alignment where the truth is known.
	cargo run --package tldr-captioner --example alignment_study
	$(if $(wildcard $(EMOJI)),cargo run --package tldr-captioner --example alignment_study -- --shards $(EMOJI) --epochs 30 --folds 4 --augment shift-flip,@echo "no $(EMOJI): left out")

# Coverage-guided, with libFuzzer, on the stable toolchain: hence no sanitizer, and no coverage of
# libjpeg-turbo's C, which its own project fuzzes with both.
FUZZ_TARGETS := shard caption jpeg png webp
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: ## Fuzzes the readers and decoders, a minute each.
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet cargo-fuzz
	for target in $(FUZZ_TARGETS); do \
		mkdir -p tests/fuzz/corpus/$$target; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target \
			tests/fuzz/corpus/$$target tests/fuzz/seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -print_final_stats=1 || exit 1; \
	done

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(VENV)/.loops: requirements-loops.txt $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-loops.txt
	@touch $@

# --- a release (RELEASE.md) -----------------------------------------------------------------

$(VENV)/.wheel: requirements-wheel.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-wheel.txt
	@touch $@

# Against glibc 2.28, of 2018: zig has the symbols of old releases. The C of libjpeg-turbo, zstd and ring is
# compiled by it, too. A machine that builds for another one has none of that one's Python, and needs none: abi3.
MATURIN = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --release --out dist
OLD_GLIBC := --zig --compatibility manylinux_2_28 --manifest-path bindings/python/Cargo.toml --interpreter python3

.PHONY: wheel wheel-aarch64 wheel-captioner
wheel: $(VENV)/.wheel ## Builds the wheel of the core for this machine, for any Linux since 2018.
	rm -f dist/tldr_loader-*_$$(uname -m).whl
	$(MATURIN) $(OLD_GLIBC)
	$(BIN)/auditwheel show dist/tldr_loader-*_$$(uname -m).whl

wheel-aarch64: $(VENV)/.wheel ## Builds the wheel of the core for aarch64, on this machine.
	rustup target add aarch64-unknown-linux-gnu
	rm -f dist/tldr_loader-*_aarch64.whl
	$(MATURIN) $(OLD_GLIBC) --target aarch64-unknown-linux-gnu
	$(BIN)/auditwheel show dist/tldr_loader-*_aarch64.whl

# It links the libtorch of .venv and finds it in the torch that is imported before it, so that its wheel is one for
# the glibc of this machine and torch 2.11 only.
wheel-captioner: $(VENV)/.wheel $(VENV)/.run ## Builds the wheel of the captioner, for torch 2.11 and this glibc.
	rm -f dist/tldr_loader_captioner-*.whl
	$(MATURIN) --auditwheel skip --manifest-path bindings/captioner/Cargo.toml

.PHONY: test-environments
test-environments: build ## Tries the wheel without torch and with three releases of it (15 GB, half an hour).
	$(BIN)/python tests/environments.py

# --- the parts of `make test` ---------------------------------------------------------------

.PHONY: format lint docs test-rust test-python smoke
format: $(VENV)/.dev
	cargo fmt --all --check
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .

docs: $(VENV)/.dev
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Of the whole workspace at once: a part of it would have some dependencies built with other features, and then
# the core. Benches run too, on little. (--all-targets would build harnesses of what says `test = false`.)
test-rust: $(VENV)/.dev
	cargo test --workspace --tests --benches
	cargo test --workspace --doc

test-python: $(VENV)/.dev build
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml tldr_loader tldr_loader_captioner
	$(PYTEST)

# Every example takes `--smoke`: the whole path, in seconds.
smoke: $(VENV)/.dev build
	cargo build --quiet --workspace --examples
	for example in $(RUST_EXAMPLES); do $(TARGET)/debug/examples/$$example --smoke || exit 1; done
	for example in $(PYTHON_EXAMPLES); do $(BIN)/python $$example --smoke || exit 1; done

.PHONY: clean
clean: ## Removes what was built; keeps the virtual environment.
	cargo clean
	rm -rf demo compare dist
