#!/usr/bin/env python3
"""Makes Debian packages of what `make install` leaves (`make deb`).

    packaging/deb.py [--to target/debs] [--maintainer 'Name <mail>']

libobmalloc0 has the library, libobmalloc-dev what one builds with, obmalloc the command:
packaging/debian/contents says which file belongs where, control what the packages need. The
tools are dpkg's own: dpkg-shlibdeps finds what the programs need of the C library,
dpkg-gensymbols writes since which version each name is there (from the lists of the
releases, which tests/abi/abi.py keeps), dpkg-gencontrol and dpkg-deb make the package. All
dates are the changelog's, so the same build gives the same bytes. Nobody has to be root.
CARGO_BUILD_TARGET and CROSS, which make sets for TARGET=, are the machine of the packages and the
prefix of the binutils for it.
"""
import argparse
import email.utils
import fnmatch
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
sys.dont_write_bytecode = True      # before the module of tests/abi is imported
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "packaging" / "debian"
# Where cargo builds.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
RELEASE = TARGET / os.environ.get("CARGO_BUILD_TARGET", "") / "release"
TREE = TARGET / "deb"
LIBRARY, SONAME, PYTHONS = "libobmalloc0", "libobmalloc.so.0", "libobmalloc_pythons.so"
STRIP = os.environ.get("CROSS", "") + "strip"
NOTES = ("--remove-section=.comment", "--remove-section=.note")

sys.path.insert(0, str(ROOT / "tests" / "abi"))
import abi  # noqa: E402
import third_party  # noqa: E402


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE,
                          universal_newlines=True, **options).stdout


def version():
    """Of the changelog, and whether it fits what is built."""
    found = re.match(r"obmalloc \((([\d.]+)-\d+)\) ", (DEBIAN / "changelog").read_text())
    if not found or found.group(2) != abi.version():
        sys.exit(f"deb: the first entry of packaging/debian/changelog is not of {abi.version()}, "
                 "the version in Cargo.toml")
    return found.group(1)


def date():
    """The changelog's, in seconds."""
    text = re.search(r"^ -- .*  (.*)$", (DEBIAN / "changelog").read_text(), re.M).group(1)
    return int(email.utils.parsedate_to_datetime(text).timestamp())


def crates():
    """What else is compiled in, for the copyright file."""
    head = ("Comment:\n The programs are compiled with these crates, under their licences, whose texts\n"
            " are in third-party.txt.gz beside this file:\n")
    return head + "".join(f" .\n {name} v{number}: {licence}\n"
                          for name, number, licence in third_party.crates(third_party.machine()))


def installed(architecture):
    """The tree that make install leaves, as a package has it; its path."""
    root = TREE / "installed"
    libdir = f"/usr/lib/{architecture}"
    run("make", "-s", "-C", ROOT, "install", f"DESTDIR={root}", "PREFIX=/usr", f"LIBDIR={libdir}",
        env=dict(os.environ, MAKEFLAGS=""))
    # The copyright file of each package has what the licences say, and each package the
    # licences of the crates.
    shutil.rmtree(root / "usr" / "share" / "doc")
    # One's own folder for a library that nobody links with.
    place = root / libdir[1:]
    (place / "obmalloc").mkdir()
    (place / PYTHONS).rename(place / "obmalloc" / PYTHONS)
    for path in [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
        if path.suffix == ".1":
            compress(path, path.with_name(path.name + ".gz"))
            path.unlink()
        elif path.suffix == ".a":
            run(STRIP, "--strip-debug", *NOTES, "--enable-deterministic-archives", path)
            path.chmod(0o644)
        elif ".so" in path.name:
            run(STRIP, "--strip-unneeded", *NOTES, path)
            path.chmod(0o644)
        elif path.parent.name == "bin":
            run(STRIP, *NOTES, path)
            path.chmod(0o755)
        else:
            path.chmod(0o644)
    return root


def compress(source, target):
    with open(target, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed:
        packed.write(source.read_bytes())


def share_out(root, packages):
    """Moves each file to the folder of its package."""
    lines = [line.split() for line in (DEBIAN / "contents").read_text().splitlines()
             if line and line[0] != "#"]
    unused = {pattern for _, pattern in lines}
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = str(path.relative_to(root))
        package, pattern = next((line for line in lines
                                 if fnmatch.fnmatch(name.replace(".1.gz", ".1"), line[1])), (None, None))
        if package not in packages:
            sys.exit(f"deb: {name}: no package has it by packaging/debian/contents")
        unused.discard(pattern)
        target = TREE / package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    if unused:
        sys.exit(f"deb: no file is {' '.join(sorted(unused))} of packaging/debian/contents")


def symbols():
    """The symbols file: since which version of the package each name is there."""
    first = abi.since(abi.exported(RELEASE / "libobmalloc.so"))
    added = sorted(name for name, release in first.items() if release is None)
    if added and abi.version() in abi.releases():
        sys.exit(f"deb: {', '.join(added)}: not in release {abi.version()}; the version in Cargo.toml "
                 "has to be a newer one")
    rows = [f" {name}@Base {release or abi.version()}\n" for name, release in sorted(first.items())]
    return f"{SONAME} {LIBRARY} #MINVER#\n" + "".join(rows)


def control(package, of_version, architecture):
    """The files of DEBIAN/."""
    folder = TREE / package
    meta = folder / "DEBIAN"
    meta.mkdir(exist_ok=True)
    if package == LIBRARY:
        (TREE / "debian" / f"{LIBRARY}.symbols").write_text(symbols())
        [library] = folder.glob(f"usr/lib/*/{SONAME}.*")
        # A difference between the lists and the library is an error (-c4).
        run("dpkg-gensymbols", "-c4", f"-p{LIBRARY}", f"-P{folder}", f"-v{of_version}", f"-e{library}",
            f"-I{TREE}/debian/{LIBRARY}.symbols", f"-O{meta}/symbols", cwd=TREE)
        (meta / "shlibs").write_text(
            f"libobmalloc 0 {LIBRARY} (>= {max(abi.releases() + [abi.version()], key=abi.number)})\n")
        (meta / "triggers").write_text("activate-noawait ldconfig\n")
    binaries = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
                and path.read_bytes()[:4] == b"\x7fELF"]
    substitutions = TREE / "debian" / f"{package}.substvars"
    substitutions.write_text("")
    if binaries:
        # The cross compiler's libraries are in a folder of their own; its packages depend on
        # libc6:arm64, or on libgcc-s1-arm64-cross, for what is libc6 and libgcc-s1 on arm64.
        cross = [f"-l/usr/{os.environ['DEB_HOST_GNU_TYPE']}/lib"] if os.environ.get("CROSS") else []
        run("dpkg-shlibdeps", f"-T{substitutions}", f"-S{folder}", *cross,
            *[f"-e{path}" for path in binaries], cwd=TREE)
        text = re.sub(f"(-{architecture}-cross|:{architecture})\\b", "", substitutions.read_text())
        substitutions.write_text(text)
    documents = folder / "usr" / "share" / "doc" / package
    documents.mkdir(parents=True)
    compress(TREE / "debian" / "changelog", documents / "changelog.Debian.gz")
    shutil.copyfile(TREE / "debian" / "copyright", documents / "copyright")
    compress(RELEASE / "THIRD-PARTY.txt", documents / "third-party.txt.gz")
    files = sorted(path for path in folder.rglob("*")
                   if path.is_file() and not path.is_symlink() and meta not in path.parents)
    (meta / "md5sums").write_text("".join(
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files))
    run("dpkg-gencontrol", f"-p{package}", f"-P{folder}", f"-T{substitutions}", f"-v{of_version}",
        f"-DArchitecture={architecture}", cwd=TREE)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    for path in [*meta.iterdir(), *documents.iterdir()]:
        path.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", type=Path, default=TARGET / "debs")
    parser.add_argument("--maintainer", default="obmalloc maintainers <root@%s>"
                        % (os.uname().nodename if "." in os.uname().nodename else "localhost"),
                        help="name and address in the packages")
    options = parser.parse_args()
    missing = [tool for tool in ("dpkg-deb", "dpkg-gensymbols", "dpkg-shlibdeps", "dpkg-gencontrol",
                                 STRIP) if not shutil.which(tool)]
    if missing:
        sys.exit(f"deb: no {missing[0]} here: install dpkg-dev and binutils")
    of_version = version()
    machine, *_, libc = third_party.machine().split("-")
    if libc != "gnu":
        sys.exit(f"deb: Debian's Pythons need glibc, and this build is for {libc}")
    # dpkg's tools read the variables.
    os.environ.update(line.split("=", 1) for line in run(
        "dpkg-architecture", f"-t{machine}-linux-gnu", stderr=subprocess.DEVNULL).splitlines())
    architecture = os.environ["DEB_HOST_ARCH"]
    os.environ["SOURCE_DATE_EPOCH"] = str(date())
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(DEBIAN, TREE / "debian")
    for name in "control", "changelog", "copyright":
        path = TREE / "debian" / name
        text = path.read_text().replace("@MAINTAINER@", options.maintainer)
        path.write_text(text.replace("@CRATES@\n", "") if name != "copyright"
                        else text.replace("@CRATES@\n", crates() + "\n"))
    packages = re.findall(r"^Package: (\S+)$", (DEBIAN / "control").read_text(), re.M)
    share_out(installed(os.environ["DEB_HOST_MULTIARCH"]), packages)
    options.to.mkdir(parents=True, exist_ok=True)
    for package in packages:
        control(package, of_version, architecture)
        file = options.to / f"{package}_{of_version}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "--build", TREE / package, file)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
