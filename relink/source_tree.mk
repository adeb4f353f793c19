# For the build of a CPython source tree: makes Objects/obmalloc.o of our archive.
#
#     MAKEFILES=/path/to/relink/source_tree.mk make
#
# GNU make reads the files in MAKEFILES before the tree's own Makefile, in its sub-makes
# too. A rule that names its target goes before the tree's rule for every .c file, so
# Objects/obmalloc.c is not compiled; everything else, libpython's archive included, takes
# the object as it takes any other. `-u` takes the member that defines the name, and it
# defines them all.

SOURCE_TREE_MK := $(lastword $(MAKEFILE_LIST))
LIBOBMALLOC ?= $(abspath $(or $(CARGO_TARGET_DIR),$(dir $(SOURCE_TREE_MK))/../target)/$(CARGO_BUILD_TARGET)/release/libobmalloc.a)

Objects/obmalloc.o: $(LIBOBMALLOC)
	$(LD) -r -u PyObject_Malloc -o $@ $(LIBOBMALLOC)
