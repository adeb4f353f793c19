"""The library's lines on stderr, and what they have to say."""
import re

ACTIVE = re.compile(r'^obmalloc: active in pid (\d+): CPython (\S+), domains (\S+?)(,|$)', re.I)
ASIDE = re.compile(r'^obmalloc: standing aside in pid (\d+): (.+)', re.I)


def lines(done):
    """All status lines of a run, as matches of ACTIVE or ASIDE."""
    return done.lines(ACTIVE) + done.lines(ASIDE)


def domains(python):
    """2.7 has one allocator and no table; its MEM domain is libc's."""
    return 'obj' if python.numbers < (3,) else 'mem+obj'


def silent(done):
    """Without OBMALLOC_VERBOSE the library writes nothing."""
    assert 'obmalloc' not in (done.out + done.err).lower()


def one_line(done, pattern):
    """The match of the one status line, which the process itself has written."""
    found = lines(done)
    assert len(found) == 1, f'{len(found)} status lines'
    line = pattern.match(found[0].group())
    assert line, 'another verdict'
    assert int(line.group(1)) == done.pid, 'the pid of another process'
    return line


def version(done, version, domains='mem+obj'):
    """The status line: active, in this version, with these domains."""
    line = one_line(done, ACTIVE)
    assert (line.group(2), line.group(3).lower()) == (version, domains)


def active(done, python):
    """The status line: active, in this interpreter, with its domains."""
    version(done, python.version, domains(python))


def aside(done, reason):
    """The status line: standing aside, for a reason that this pattern finds."""
    line = one_line(done, ASIDE)
    assert re.search(reason, line.group(2), re.I), f'another reason than {reason}'


def active_at_last(done, python):
    """A late installation may have said before why it could not be made: the last line counts,
    and active is said once."""
    found = lines(done)
    assert found and {int(line.group(1)) for line in found} == {done.pid}
    assert len(done.lines(ACTIVE)) == 1
    last = ACTIVE.match([line for line in done.err.splitlines() if 'obmalloc: ' in line][-1])
    assert last and last.group(2) == python.version


def says(done, pattern, others=None):
    """stderr is one line that is `obmalloc: ` and this pattern, but for lines that match
    `others`."""
    found = [line for line in done.err.splitlines() if not (others and others.match(line))]
    assert len(found) == 1 and re.fullmatch('obmalloc: ' + pattern, found[0]), \
        f'not the one line {pattern}'
