#!/bin/sh
# Builds CPython 3.13 for musl from the source package of Debian 13, with zlib and libffi:
#
#     tests/arch/build_musl_python.sh FOLDER
#
# FOLDER/static has an interpreter that contains all of its code, FOLDER/shared one with a
# libpython. Each part is built once; a part that is complete is not built again. Needs Debian's
# apt-get, musl-gcc (musl-tools), gcc, make, xz, and for libffi autoconf, automake,
# libtool and libltdl-dev.
# Takes about 8 minutes on two cores.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd -P)
suite=trixie
jobs=${JOBS:-2}
machine=$(uname -m)

# Source packages of the suite, by lists of its own: the machine's are not touched.
get_sources() {
    mkdir -p "$folder/lists/partial" "$folder/sources"
    cd "$folder/sources"
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    echo "deb-src $uri $suite main" > sources.list
    set -- -q -o Dir::Etc::sourcelist="$folder/sources/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= \
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none
    apt-get "$@" update
    apt-get "$@" source --download-only --tar-only python3.13 zlib libffi
}

# A compiler for musl that also finds the kernel's headers, and that answers CPython's configure.
make_compiler() {
    mkdir -p "$folder/include" "$folder/bin" "$folder/prefix/lib/pkgconfig"
    ln -sfn /usr/include/linux "$folder/include/linux"
    ln -sfn /usr/include/asm-generic "$folder/include/asm-generic"
    ln -sfn "/usr/include/$(gcc -print-multiarch)/asm" "$folder/include/asm"
    cat > "$folder/bin/cc" << END
#!/bin/sh
[ "\${1-}" != --print-multiarch ] || { echo $machine-linux-musl; exit; }
exec musl-gcc "\$@" -idirafter $folder/include
END
    chmod +x "$folder/bin/cc"
}

unpack() {      # NAME: into the working folder
    rm -rf "$folder/work/$1"
    mkdir -p "$folder/work/$1"
    cd "$folder/work/$1"
    tar -xf "$folder/sources/$1"_*.orig.tar.?z --strip-components=1
}

build_libraries() {
    unpack zlib
    CFLAGS='-O2 -fPIC' ./configure --static --prefix="$folder/prefix"
    make -s -j"$jobs" libz.a
    make -s install
    unpack libffi
    autoreconf -fi
    ./configure -q --disable-shared --enable-static --with-pic --disable-docs \
        --disable-multi-os-directory --prefix="$folder/prefix" --host="$machine-linux-musl" CC="$CC"
    make -s -j"$jobs"
    make -s install
}

build_python() {        # KIND OPTION...: static or shared
    kind=$1
    shift
    unpack python3.13
    # The modules that need other libraries find none in the folder of pkg-config.
    ./configure -q --prefix="$folder/$kind" --without-ensurepip \
        "$@" OPT='-DNDEBUG -O2 -fwrapv' CPPFLAGS="-I$folder/prefix/include" \
        LDFLAGS="-L$folder/prefix/lib -Wl,-rpath,$folder/$kind/lib"
    make -s -j"$jobs"
    # Bytecode of the standard library only, and not of its tests: of those when they are run.
    make -s install COMPILEALL_OPTS='-q -l'
    "$folder/$kind/bin/python3.13" -m compileall -q -j0 -x '/(test|idlelib|turtledemo)/' \
        "$folder/$kind/lib/python3.13"
    rm -rf "$folder/work/python3.13"
}

# part NAME COMMAND...: once.
part() {
    mark=$folder/$1.complete
    shift
    [ -e "$mark" ] && return
    "$@"
    touch "$mark"
}

CC=$folder/bin/cc
PKG_CONFIG_LIBDIR=$folder/prefix/lib/pkgconfig
export CC PKG_CONFIG_LIBDIR
part sources get_sources
part compiler make_compiler
part libraries build_libraries
part static build_python static
part shared build_python shared --enable-shared
