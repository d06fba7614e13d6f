"""releases.py TESTS RESULTS PAGE FILE...: writes the table of docs/releases.md from the runs in RESULTS (*.tap)."""
import datetime
import pathlib
import re
import sys

BEGIN, END = "<!-- made by make test-slurm-matrix -->\n", "<!-- end -->\n"
BY_HAND, BY_HAND_END = "<!-- made by tests/slurm/matrix with trees made by hand -->\n", "<!-- end by hand -->\n"
tests, results, page = map(pathlib.Path, sys.argv[1:4])
files = sys.argv[4:]

titles = {}
for name in files:
    for title in re.findall(r'^@test "(.*)" \{$', (tests / f"{name}.bats").read_text(), re.M):
        title = title.replace('\\"', '"').replace("\\$", "$")
        assert titles.setdefault(title, name) == name, f"{title!r} is in two files"


def read(tap):
    counts = {name: {"ok": 0, "not ok": 0, "skip": 0} for name in files}
    failed_once = set()
    for line in tap.read_text(errors="replace").splitlines():
        found = re.match(r"(ok|not ok) \d+ (.*?)(?: in \d+ms)?( # skip.*)?$", line)
        # A run of all files may be read, too.
        if found and found[2] in titles:
            count = counts[titles[found[2]]]
            count["skip" if found[3] else found[1]] += 1
            # A test that failed is run once more, and its second result counts.
            if found[2] in failed_once:
                count["not ok"] -= 1
                failed_once.discard(found[2])
            elif found[1] == "not ok":
                failed_once.add(found[2])
    return counts


def table(taps):
    columns = []
    for tap in sorted(taps, key=lambda tap: tap.with_suffix(".version").read_text()):
        columns.append((tap.with_suffix(".version").read_text().strip(), tap.stem, read(tap)))
    heads = [version if suite in version else f"{version} ({suite})" for version, suite, _ in columns]
    lines = [f"| file | {' | '.join(heads)} |", f"|---|{'---|' * len(columns)}"]
    for name in files:
        cells = [" / ".join(str(counts[name][word]) for word in ("ok", "not ok", "skip")) for _, _, counts in columns]
        lines.append(f"| `{name}.bats` | {' | '.join(cells)} |")
    sums = [" / ".join(str(sum(count[word] for count in counts.values())) for word in ("ok", "not ok", "skip"))
            for _, _, counts in columns]
    lines.append(f"| all | {' | '.join(sums)} |")
    return f"Passed / failed / not there, on {datetime.date.today()}:\n\n" + "\n".join(lines) + "\n"


# What is not run stays as it is on the page.
for taps, begin, end in (sorted(results.glob("*.tap")), BEGIN, END), (sorted(results.glob("by-hand/*.tap")), BY_HAND, BY_HAND_END):
    if taps:
        text = page.read_text()
        page.write_text(f"{text.split(begin)[0]}{begin}{table(taps)}{end}{text.split(end)[1]}")
