#!/usr/bin/env python3
"""Draws the results of `paxos-client bench sweep`. Needs Python 3 and matplotlib.

    benches/chart.py sweep.csv sweep.svg              the name decides the format: .svg, .png or .pdf
"""

import csv
import sys

try:
    from matplotlib import pyplot, rcParams, ticker
except ImportError:
    sys.exit("matplotlib is missing. Next: python3 -m pip install matplotlib")

KINDS = {"0": "writes", "100": "linearizable reads"}
CAPTION = ("All servers and the clients on one machine, fsync=on, {pipeline} in flight per client, values of "
           "{value_size} bytes. The number after a protocol is the number of servers.")
# Colors that people with any kind of color vision can tell apart (Okabe and Ito), and dashes for print without color.
COLORS = "#0072B2 #D55E00 #009E73 #CC79A7 #56B4E9 #E69F00 #000000 #999999".split()
DASHES = ["-", "--", ":"]


def draw_panel(axes, title, rows, x, x_label, y, y_label, clusters):
    """Draws the column `y` over the column `x`, with a line for each protocol and number of servers."""
    for n, cluster in enumerate(clusters):
        points = sorted((row[x], row[y]) for row in rows if row["cluster"] == cluster)
        if points:
            axes.plot(*zip(*points), color=COLORS[n % 8], linestyle=DASHES[n % 3], marker=".", label=cluster)
    # Loads and sizes grow in powers.
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
    axes.set_xticks(sorted({row[x] for row in rows}))
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_locator(ticker.NullLocator())
    axes.grid(axis="y", color="#ddd")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def main(source, target):
    with open(source, newline="") as file:
        rows = list(csv.DictReader(file)) or sys.exit(f"{source} has no results")
    for row in rows:
        row.update({name: float(row[name]) for name in ("clients", "ops_per_s")}, p99_ms=float(row["p99_us"]) / 1e3)
        row.update(cluster=f"{row['protocol']} {row['servers']}", bytes=float(row["value_size"]))
    # The first value size is measured with each number of clients, the others on clusters of one size with one number.
    first = [row for row in rows if row["bytes"] == rows[0]["bytes"]]
    loads = {(row["servers"], row["clients"]) for row in rows if row not in first}
    by_size = [row for row in rows if (row["servers"], row["clients"]) in loads]
    panels = [("throughput", first, "clients", "clients", "ops_per_s", "ops/s")]
    panels += [("p99 latency", first, "clients", "clients", "p99_ms", "ms")]
    if by_size:
        panels += [(f"{by_size[0]['clients']:g} clients", by_size, "bytes", "bytes per value", "ops_per_s", "ops/s")]
    # Words stay words in an SVG file, and the same results give the same file.
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sweep"})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4), layout="constrained")
    kind = KINDS.get(rows[0]["reads"], f"{rows[0]['reads']} % linearizable reads")
    for one, (title, *columns) in zip(axes, panels):
        draw_panel(one, f"{kind}: {title}", *columns, clusters=list(dict.fromkeys(row["cluster"] for row in rows)))
    figure.supxlabel(CAPTION.format(**rows[0]), fontsize="small")
    figure.savefig(target, metadata={"Date": None, "Creator": None} if target.endswith(".svg") else None)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 3 else sys.exit(__doc__)
