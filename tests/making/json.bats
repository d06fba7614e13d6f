# docs/json.md: each command that is shown there prints a document with the keys that are shown.
load making

document="$BATS_TEST_DIRNAME/../../docs/json.md"

# The examples as pairs of lines: a command, and what it prints.
examples() {
	grep -A1 -E '^    coracle .*--json' "$document" | grep -v '^--$' | sed 's/^    //'
}

@test "the examples of docs/json.md run, and their documents have the keys that are shown" {
	small_tree tree
	printf 'version: 1\nuser_images: kernel\n' >coracle.yaml
	local command shown count=0
	while read -r command && read -r shown; do
		count=$((count + 1))
		# What is bad is said with a status of 1, and with a document all the same.
		$command >out 2>err || [[ $? == 1 && -s out ]] || { echo "$command" >&2; cat err >&2; return 1; }
		python3 - "$shown" out <<'CHECK' || { echo "of: $command" >&2; return 1; }
import json, re, sys

def documents(value):
	yield value
	for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
		yield from documents(inner)

shown, printed = json.loads(sys.argv[1]), json.load(open(sys.argv[2]))
missing, more = set(shown) - set(printed), set(printed) - set(shown)
assert printed["version"] == 1, printed
assert not missing and not more - {"digest"}, (missing, more)
for name, value in printed.items():
	if name not in ("labels", "environment", "oci"):
		for part in documents(value):
			names = part if isinstance(part, dict) else []
			assert all(re.fullmatch("[a-z][a-z_]*", name) for name in names), part
	if name in ("created", "modified"):
		assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), value
CHECK
	done < <(examples)
	((count == 9)) || { echo "$count examples" >&2; return 1; }
}
