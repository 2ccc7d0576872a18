"""Reads a report's files with the Python implementation of HdrHistogram, which shares no code with
the one that wrote them, and prints what it finds as JSON.

    read_histograms.py FOLDER
"""

import json
import math
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

BOUNDS = (1, 60_000_000_000, 3)


def percentile(histogram, percent):
    """This package rounds the rank that a percentile falls on; the others of its family, ours among
    them, take the next whole one. Asked for a whole rank, all mean the same."""
    count = histogram.get_total_count()
    if count == 0:
        return 0
    # A hair less, for percentiles of which a text holds only so many digits.
    rank = max(1, math.ceil(percent / 100 * count - 1e-6))
    return histogram.get_value_at_percentile(100 * rank / count)


def facts(histogram):
    return {
        "count": histogram.get_total_count(),
        "max_ns": histogram.get_max_value(),
        "min_ns": histogram.get_min_value(),
        "mean_ns": histogram.get_mean_value(),
        "percentiles": {
            name: percentile(histogram, percent)
            for name, percent in [
                ("p50_ns", 50),
                ("p90_ns", 90),
                ("p99_ns", 99),
                ("p999_ns", 99.9),
                ("p9999_ns", 99.99),
            ]
        },
    }


def rows(text):
    """Value, percentile and count of each line of a percentile text."""
    lines = [line.split() for line in text.splitlines()[1:] if line and not line.startswith("#")]
    return [[float(word) for word in words[:3]] for words in lines]


folder = sys.argv[1]
with open(f"{folder}/report.json", encoding="utf-8") as file:
    report = json.load(file)
whole = HdrHistogram.decode(report["latency"]["histogram"])

log = HistogramLogReader(f"{folder}/intervals.hlog", HdrHistogram(*BOUNDS))
intervals = []
summed = HdrHistogram(*BOUNDS)
while (interval := log.get_next_interval_histogram()) is not None:
    start_s = interval.get_start_time_stamp() / 1000 - log.get_start_time_sec()
    intervals.append({"start_s": start_s, **facts(interval)})
    summed.add(interval)

# Each line of the percentile text beside what this package says of that percentile.
counts = {}
for step in whole.get_recorded_iterator():
    counts[step.value_iterated_to] = step.total_count_to_this_value
hgrm = []
with open(f"{folder}/latency.hgrm", encoding="utf-8") as file:
    for value_us, quantile, count in rows(file.read()):
        ns = percentile(whole, 100 * quantile)
        hgrm.append({"line": [value_us, count], "here": [ns / 1000, counts[ns]], "quantile": quantile})

json.dump(
    {
        "whole": facts(whole),
        "summed": facts(summed),
        "intervals": intervals,
        "started_s": log.get_start_time_sec(),
        "hgrm": hgrm,
    },
    sys.stdout,
)
