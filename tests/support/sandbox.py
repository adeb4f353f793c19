"""A copy of this machine for installations: the whole file system under an overlay in memory,
in a mount namespace of its own. Its changes end with the process, and nothing outside it sees
them."""
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support import child

SETUP = '''set -e
mount -t tmpfs none "$1"
mkdir "$1/changed" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changed,workdir=$1/work" "$1/root"
for place in /dev /sys; do mount --rbind "$place" "$1/root$place"; done
mount -t proc none "$1/root/proc"
mount -t tmpfs none "$1/root/tmp"
cd "$1/root"
shift
cp -- "$@" tmp/
exec chroot . /bin/sh -e /tmp/script
'''


def script(text, *files, timeout=600):
    """Runs a shell script as root in a copy of this machine, with copies of these files in
    its /tmp."""
    for tool in 'unshare', 'chroot', 'mount':
        if not shutil.which(tool):
            pytest.skip(f'no {tool}')
    if os.geteuid() != 0:
        pytest.skip('only root can make a copy of the machine')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'script')
        path.write_text(text)
        root = Path(folder, 'sandbox')
        root.mkdir()
        # mount(2) of an overlay is refused in most containers.
        trial = child.run(['unshare', '--mount', '--propagation', 'private', 'sh', '-c',
                           SETUP.split('for place')[0], 'setup', root])
        if trial.status != 0:
            pytest.skip('no overlay of /: ' + trial.err.strip()[-200:])
        env = child.clean_environment(DEBIAN_FRONTEND='noninteractive', LC_ALL='C.UTF-8')
        return child.run(['unshare', '--mount', '--pid', '--fork', '--kill-child', '--propagation',
                          'private', 'sh', '-c', SETUP, 'setup', root, path, *files],
                         env, timeout, status=0)
