#!/bin/sh
# Builds a CPython source tree with libobmalloc.a in the place of Objects/obmalloc.c.
#
#     relink/source_tree.sh SOURCE_DIR [make's arguments, such as -j2 or install]
#
# SOURCE_DIR is a tree in which ./configure was run, with any options but
# --disable-gil. One variable does the work, see source_tree.mk; around it, this script
# says what is missing, and proves that nothing of CPython's obmalloc is left.
# LIBOBMALLOC=PATH is another archive than target/release/libobmalloc.a.

set -eu

stop() {
    echo "source_tree.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || stop "usage: source_tree.sh SOURCE_DIR [make's arguments]"
tree=$1
shift
release=${CARGO_TARGET_DIR:-$here/../target}/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release
archive=${LIBOBMALLOC:-$release/libobmalloc.a}

[ -f "$archive" ] || stop "no $archive: run make in the top directory, or set LIBOBMALLOC"
[ -d "$tree/Objects" ] && [ -f "$tree/Makefile.pre" ] ||
    stop "$tree is not a configured source tree of CPython: run ./configure in it first"
if grep -q '^#define Py_GIL_DISABLED 1' "$tree/pyconfig.h"; then
    stop "$tree is configured with --disable-gil, which needs CPython's own allocator"
fi
archive=$(cd "$(dirname "$archive")" && pwd)/$(basename "$archive")

# Names that a CPython build of some version needs, and that the archive does not define weakly.
lists=$here/../tests/abi
weak=$(nm --quiet --defined-only --extern-only "$archive" | sed -n 's/.* [WV] //p')
missing=$(cat "$lists"/needed/*.txt "$lists/extensions.txt" "$lists/debug.txt" | grep -v '^#' |
          sort -u | grep -vxF "$weak") || true
[ -z "$missing" ] || stop "$archive lacks" $missing "; run make"

# True if the names in a file are the archive's, which are weak; CPython's are not.
is_ours() {
    nm --quiet --defined-only "$1" | grep -q ' W PyObject_Malloc$'
}

# An object from an earlier build would pass for up to date.
object=$tree/Objects/obmalloc.o
[ ! -f "$object" ] || is_ours "$object" || rm "$object"

LIBOBMALLOC=$archive MAKEFILES=$here/source_tree.mk make -C "$tree" "$@"

[ -f "$object" ] || exit 0     # make clean, say
is_ours "$object" || stop "$object is CPython's all the same: does its Makefile name a rule?"

# Each program, library and archive of the build that has an allocator has ours.
found=0
for file in "$tree"/python "$tree"/libpython*.so "$tree"/libpython*.a "$tree"/_bootstrap_python \
            "$tree"/Programs/_freeze_module "$tree"/Programs/_testembed; do
    [ -f "$file" ] || continue
    nm --quiet --defined-only "$file" | grep -q ' PyObject_Malloc$' || continue
    is_ours "$file" || stop "$file was linked before: remove it, and run this again"
    found=$((found + 1))
done
echo "source_tree.sh: $found files of $tree have obmalloc, none has CPython's"
