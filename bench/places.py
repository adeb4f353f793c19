"""Where a benchmark is measured: interpreters, or relinked pairs, with their sides."""

import hosts
from definitions import EXTRA, Side


class Place:
    """An interpreter, or a pair relinked from it, with its sides: {Side: (path, environment)}."""

    def __init__(self, name, python, sides):
        self.name, self.python, self.sides = name, python, sides


def side_of(text):
    """A side that --side names: one of EXTRA, or NAME:VARIABLE=VALUE,..."""
    if text in EXTRA:
        return EXTRA[text]
    name, _, settings = text.partition(":")
    settings = [setting.partition("=") for setting in settings.split(",")]
    if not name or not all(variable and value for variable, _, value in settings):
        hosts.stop("a side is NAME:VARIABLE=VALUE,... or one of %s, not %s"
                   % (", ".join(EXTRA), text))
    return Side(name, settings={variable: value for variable, _, value in settings})


def places(benchmark, options):
    """The Places to measure; exits if a side is not what its name says."""
    wanted = list(benchmark.sides) + [side_of(text) for text in options.side]
    for python in hosts.choose(options.interpreters or
                               (benchmark.interpreters if not options.relinked else "")):
        yield checked(python, hosts.name(python), wanted, python.path, python.path,
                      {"LD_PRELOAD": hosts.LIBRARY}, benchmark)
    for wish in filter(None, options.relinked.split(",")):
        for python in hosts.choose(wish):
            try:
                stock, ours = (hosts.interpreters.relink(python, stock=stock).path
                               for stock in (True, False))
            except RuntimeError as problem:
                print("skip: %s: %s" % (wish, problem))
                continue
            hosts.watch(stock), hosts.watch(ours)
            yield checked(python, python.version + " relinked", wanted, stock, ours, {}, benchmark)


def checked(python, name, wanted, stock, ours, preload, benchmark):
    """A Place whose sides have been proved: the library is active where it is to be."""
    sides = {}
    for side in wanted:
        if python.numbers[:2] < side.since:
            print("skip: %s, side %s: needs %d.%d" % ((name, side.name) + side.since))
            continue
        path = ours if side.preloaded else stock
        environment = dict(hosts.clean_environment(), **benchmark.environment)
        environment.update(preload if side.preloaded else {}, **side.settings)
        if side.library:
            environment["LD_PRELOAD"] = side.library
            if not hosts.has_symbol(path, environment, side.symbol):
                print("skip: %s, side %s: no %s with %s here: %s"
                      % (name, side.name, side.library, side.symbol, side.where))
                continue
        if bool(hosts.status_line([path], environment)) != side.preloaded:
            hosts.stop("%s, side %s: the library is %sactive"
                       % (name, side.name, "not " if side.preloaded else ""))
        sides[side] = (path, environment)
    return Place(name, python, sides)


def programs(benchmark, options):
    """{label: words after the interpreter}, those of --only."""
    every = benchmark.programs() if callable(benchmark.programs) else benchmark.programs
    chosen = {label: words for label, words in every.items()
              if any(word in label for word in options.only.split(","))}
    if options.quick and benchmark.quick:
        drop = 1 if benchmark.name == "scaling" else 0      # the share replaces the last word
        chosen = {label: words[:len(words) - drop] + list(benchmark.quick)
                  for label, words in chosen.items()}
    return chosen
