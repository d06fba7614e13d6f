"""releases.py TESTS RESULTS PAGE FILE...: writes the table of docs/releases.md from the runs in RESULTS (*.tap)."""
import datetime
import pathlib
import re
import sys

BEGIN, END = "<!-- made by make test-slurm-matrix -->\n", "<!-- end -->\n"
if sys.argv[2].endswith("/by-hand"):
    BEGIN, END = "<!-- made by tests/slurm/matrix of trees made by hand -->\n", "<!-- end by hand -->\n"
tests, results, page = map(pathlib.Path, sys.argv[1:4])
files = sys.argv[4:]

titles = {}
for name in files:
    for title in re.findall(r'^@test "(.*)" \{', (tests / f"{name}.bats").read_text(), re.MULTILINE):
        title = title.replace('\\"', '"').replace("\\$", "$")
        assert titles.setdefault(title, name) == name, f"{title!r} is in two files"

columns = []
for tap in sorted(results.glob("*.tap"), key=lambda tap: tap.with_suffix(".version").read_text()):
    # A test that failed is run once more, and its last result counts.
    last = {}
    for line in tap.read_text(errors="replace").splitlines():
        found = re.match(r"(ok|not ok) \d+ (.*?)(?: in \d+ms)?( # skip.*)?$", line)
        # A run of all files may be read, too.
        if found and found[2] in titles:
            last[found[2]] = "skip" if found[3] else found[1]
    lost = titles.keys() - last.keys()
    assert not lost, f"{tap}: tests without a result: {sorted(lost)}"
    counts = {name: {"ok": 0, "not ok": 0, "skip": 0} for name in files}
    for title, word in last.items():
        counts[titles[title]][word] += 1
    columns.append((tap.with_suffix(".version").read_text().strip(), tap.stem, counts))

table = [f"| file | {' | '.join(f'{version} ({suite})' for version, suite, _ in columns)} |",
         f"|---|{'---|' * len(columns)}"]
for name in files:
    cells = [" / ".join(str(counts[name][word]) for word in ("ok", "not ok", "skip")) for _, _, counts in columns]
    table.append(f"| `{name}.bats` | {' | '.join(cells)} |")
sums = [" / ".join(str(sum(count[word] for count in counts.values())) for word in ("ok", "not ok", "skip"))
        for _, _, counts in columns]
table.append(f"| all | {' | '.join(sums)} |")

text = page.read_text()
before, after = text.split(BEGIN)[0], text.split(END)[1]
made = f"Passed / failed / not there, on {datetime.date.today()}:\n\n" + "\n".join(table) + "\n"
page.write_text(f"{before}{BEGIN}{made}{END}{after}")
