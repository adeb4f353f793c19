#!/usr/bin/env python3
"""Draws bench/memory.svg: resident memory over time of four programs of the benchmark `memory`.

Stock, obmalloc, and obmalloc without the helper thread. Each program runs --rounds times on
each side, and the shortest run is drawn, which other work on the machine has stretched least;
`--samples FILE` saves the samples, or draws them again if the file exists. matplotlib draws; if
it is missing, it is installed in an environment of its own, target/plot.
"""

import json
import os
import subprocess
import sys

import definitions
import hosts
import measure
import places

PICTURE = os.path.join(hosts.HERE, "memory.svg")
ENVIRONMENT = os.path.join(hosts.ROOT, "target", "plot")
PATTERNS = (("survivors 1 %", "3 million objects, all but a random 1 % dropped"),
            ("drop everything", "3 million objects, all dropped"),
            ("requests", "rising and falling load, 1 % is kept for a while"),
            ("alternating", "large and small tasks in turn"))
# Okabe and Ito's colours, and line styles for readers who do not see colours.
STYLES = {"stock": ("#000000", "-"), "obmalloc": ("#D55E00", "-"), "no thread": ("#0072B2", "--")}
LABELS = {"stock": "stock", "obmalloc": "obmalloc",
          "no thread": "obmalloc, OBMALLOC_BACKGROUND_THREAD=0"}
POINTS = 250        # of a line


def within_the_environment():
    """Starts this script again with a Python that has matplotlib, if this one has none."""
    try:
        import matplotlib   # noqa: F401
        return
    except ImportError:
        pass
    python = os.path.join(ENVIRONMENT, "bin", "python3")
    if os.path.realpath(sys.prefix) == os.path.realpath(ENVIRONMENT):
        hosts.stop("matplotlib cannot be imported in target/plot")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    if subprocess.run([python, "-c", "import matplotlib"], stderr=subprocess.DEVNULL).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "matplotlib"], check=True)
    os.execv(python, [python] + sys.argv)


def thin(samples):
    """At most POINTS points: of each group the highest, and the last one."""
    step = max(1, -(-len(samples) // POINTS))
    groups = (samples[at:at + step] for at in range(0, len(samples), step))
    return [max(group, key=lambda sample: sample[1]) for group in groups] + samples[-1:]


def take(options):
    """The interpreter, and lines of (seconds, MiB) by pattern and side."""
    hosts.library(options.library)
    benchmark = definitions.BY_NAME["memory"]
    options.interpreters, options.relinked, options.side = options.python, "", []
    place = next(places.places(benchmark, options))
    lines = {}
    for name, _ in PATTERNS:
        runs = {side.name: [] for side in place.sides}
        for _ in range(options.rounds):
            for side, (path, environment) in place.sides.items():
                run = measure.run([path] + benchmark.programs[name], environment, sample=True)
                end = json.loads(run.out)["ended"]
                runs[side.name].append([(at - run.samples[0][0], size / 2**20)
                                        for at, size in run.samples if at <= end and size])
        lines[name] = {side: thin(min(found, key=lambda samples: samples[-1][0]))
                       for side, found in runs.items()}
    return {"host": place.python.version, "lines": lines}


def draw(taken, png):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    matplotlib.rcParams.update({"svg.hashsalt": "obmalloc", "svg.fonttype": "path",
                                "font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False})
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 5.6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, PATTERNS):
        for side, samples in taken["lines"][name].items():
            colour, style = STYLES[side]
            axis.plot(*zip(*samples), style, color=colour, linewidth=1.4, label=LABELS[side])
        axis.set_title("%s\n%s" % (name, title), fontsize=9)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    for axis in axes[1]:
        axis.set_xlabel("seconds")
    for axis in axes[:, 0]:
        axis.set_ylabel("resident memory, MiB")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Resident memory over time, CPython %s; each ends with 2 s of idling"
                    % taken["host"], fontsize=11)
    figure.patch.set_facecolor("white")
    figure.savefig(PICTURE, metadata={"Date": None})
    if png:
        figure.savefig(png, dpi=110)


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--python", default="3.11", metavar="WHICH",
                        help="a version, distribution or a path (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--samples", metavar="FILE", help="draw these samples, or save them")
    parser.add_argument("--png", metavar="FILE", help="draw a bitmap there as well")
    options = parser.parse_args()
    within_the_environment()
    if options.samples and os.path.exists(options.samples):
        with open(options.samples, encoding="utf-8") as stream:
            taken = json.load(stream)
    else:
        taken = take(options)
        if options.samples:
            with open(options.samples, "w", encoding="utf-8") as stream:
                json.dump(taken, stream)
    draw(taken, options.png)
    print("ok: bench/memory.svg, %d KiB" % (os.path.getsize(PICTURE) // 1024))
    return 0


if __name__ == "__main__":
    sys.exit(main())
