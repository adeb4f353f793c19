"""Draws bench/memory.svg: resident memory over time of four programs of bench/memory/.

Stock, us, and us without the helper thread. Each program runs some times on each side, and
the shortest run is drawn, which other work on the machine has drawn out least; with
`--samples FILE`, what an earlier run has saved there is drawn again. matplotlib draws; where
it is missing, it is installed in an environment of its own, target/plot.

    bench/memory_plot.py                    run and draw, some five minutes
    bench/memory_plot.py --png plot.png    a bitmap as well, to look at
"""

import json
import os
import subprocess
import sys

import hosts
import memory
import pairs

PICTURE = os.path.join(hosts.HERE, "memory.svg")
ENVIRONMENT = os.path.join(hosts.ROOT, "target", "plot")
PATTERNS = (("survivors 1 %", "3 million objects, all but a random 1 % dropped"),
            ("drop everything", "3 million objects, all dropped"),
            ("requests", "a load that comes and goes, 1 % stays for a while"),
            ("alternating", "huge tasks and small ones by turns"))
# Okabe and Ito's colours, and line styles, so that nobody depends on colours.
STYLES = {"stock": ("#000000", "-"), "us": ("#D55E00", "-"), "thread off": ("#0072B2", "--")}
LABELS = {"stock": "stock", "us": "obmalloc", "thread off": "obmalloc, OBMALLOC_THREAD=0"}
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
    """So few points that the picture stays small; of each group the highest."""
    step = max(1, -(-len(samples) // POINTS))
    groups = (samples[at:at + step] for at in range(0, len(samples), step))
    return [max(group, key=lambda sample: sample[1]) for group in groups] + samples[-1:]


def take(options):
    """What is drawn: the interpreter, and lines by pattern and side."""
    hosts.library(options.library)
    host = hosts.choose(options.python)[0]
    known = {pattern.name: pattern for pattern in memory.PATTERNS}
    lines = {}
    for name, _ in PATTERNS:
        runs = memory.measure(host, known[name], options.rounds)
        shortest = {side: min(runs[side], key=lambda run: run.ended - run.began)
                    for side in memory.SIDES}
        lines[name] = {side: thin(run.samples) for side, run in shortest.items()}
    return {"host": host.version, "lines": lines}


def draw(told, png):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    matplotlib.rcParams.update({"svg.hashsalt": "obmalloc", "svg.fonttype": "path",
                                "font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False})
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 5.6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, PATTERNS):
        for side, samples in told["lines"][name].items():
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
                    % told["host"], fontsize=11)
    figure.patch.set_facecolor("white")
    figure.savefig(PICTURE, metadata={"Date": None})
    if png:
        figure.savefig(png, dpi=110)


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--python", default="3.11", metavar="WHICH",
                        help="a version, newest, distribution, or a path (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--samples", metavar="FILE", help="draw what is there, or save it there")
    parser.add_argument("--png", metavar="FILE", help="draw a bitmap there as well")
    options = parser.parse_args()
    within_the_environment()
    pairs.reproduce()
    if options.samples and os.path.exists(options.samples):
        with open(options.samples, encoding="utf-8") as stream:
            told = json.load(stream)
    else:
        told = take(options)
        if options.samples:
            with open(options.samples, "w", encoding="utf-8") as stream:
                json.dump(told, stream)
    draw(told, options.png)
    print("ok: bench/memory.svg, %d KiB" % (os.path.getsize(PICTURE) // 1024))
    return 0


if __name__ == "__main__":
    sys.exit(main())
