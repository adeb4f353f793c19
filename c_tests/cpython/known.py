"""The differences that are expected, each with the reason why it must be there.

An entry names the module, the end of the test's id, and the reason.  A failing
sub-test has an id of its own, and the test around it then has no outcome at all:
both have an entry, so that the other sub-tests of that test stay checked.  A known
difference is shown and does not fail the run; an entry whose test ran on both
sides with equal outcomes is reported as stale.
"""

# Without and with the library in LD_PRELOAD.
PRELOADED = ()

# With CPython's own obmalloc.o and with libobmalloc.a linked into the interpreter.
RELINKED = ()


def reason_for(module, test_id, entries):
    """The reason of the entry that covers this test, or None."""
    for known_module, ending, reason in entries:
        if module == known_module and test_id.endswith(ending):
            return reason
    return None
