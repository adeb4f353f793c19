"""A copy of this machine to install things in: the whole file system, under an overlay that
lies in memory, in a mount namespace of its own. What is installed or changed there is gone
with the process, and nobody outside sees it."""
import os
import shutil
import unittest

import support

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
            raise unittest.SkipTest('no %s here' % tool)
    if os.geteuid() != 0:
        raise unittest.SkipTest('only root can make a copy of the machine to install in')
    folder = support.scratch('sandbox')
    os.makedirs(folder, exist_ok=True)
    path = support.scratch('script')
    with open(path, 'w') as file:
        file.write(text)
    # mount(2) of an overlay is refused in most containers: then there is nothing to try.
    trial = support.run(['unshare', '--mount', '--propagation', 'private', 'sh', '-c',
                         SETUP.split('for place')[0], 'setup', folder])
    if trial.status != 0:
        raise unittest.SkipTest('no overlay of / here: ' + trial.err.strip()[-200:])
    return support.run(['unshare', '--mount', '--pid', '--fork', '--kill-child',
                        '--propagation', 'private', 'sh', '-c', SETUP, 'setup', folder, path,
                        *files],
                       support.clean_environment(DEBIAN_FRONTEND='noninteractive', LC_ALL='C.UTF-8'),
                       timeout)
