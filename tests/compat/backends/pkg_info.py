"""A build backend that builds nothing: it returns the metadata in the source archive.

`pip download` calls an archive's own backend for its metadata, and installs that backend and
its requirements first. Only the files of the archive are needed here, so this module takes
the backends' names.
"""

import os
import re
import shutil


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    with open("PKG-INFO", encoding="utf-8") as stream:
        text = stream.read()
    name, version = (re.search(r"^%s: (\S+)" % field, text, re.MULTILINE).group(1)
                     for field in ("Name", "Version"))
    info = "%s-%s.dist-info" % (name.replace("-", "_"), version)
    os.mkdir(os.path.join(folder, info))
    shutil.copy("PKG-INFO", os.path.join(folder, info, "METADATA"))
    return info


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise NotImplementedError("only the metadata")
