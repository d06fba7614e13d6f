# Registries for the tests: Debian's docker-registry on loopback, and what stands between it and us and makes trouble.
# shellcheck disable=SC2034 # here, there and between are for the tests

# The processor that images are for here, as registries call it, and one that it is not.
case $(uname -m) in
x86_64) here=amd64 there=arm64 ;;
aarch64) here=arm64 there=amd64 ;;
esac

# Sets registry=HOST:PORT and registry_pid. Its files and its log are in DIRECTORY.
start_registry() { # DIRECTORY [MORE-SETTINGS]
	mkdir -p "$1/data"
	printf '%s\n' 'version: 0.1' 'log: {level: info, accesslog: {disabled: true}}' 'http: {addr: "127.0.0.1:0"}' \
		"storage: {filesystem: {rootdirectory: $1/data}}" "${2-}" >"$1/config.yml"
	OTEL_TRACES_EXPORTER=none docker-registry serve "$1/config.yml" >"$1/log" 2>&1 3>&- &
	registry_pid=$!
	until registry=$(grep -oE 'listening on 127\.0\.0\.1:[0-9]+' "$1/log"); do
		kill -0 "$registry_pid" || { cat "$1/log"; return 1; }
		sleep 0.05
	done
	registry=${registry##* }
}

# Starts what stands between, with its files in DIRECTORY, and sets between=HOST:PORT. An UPSTREAM of - is none.
start_between() { # DIRECTORY [UPSTREAM]
	mkdir -p "$1"
	: >"$1/log"
	python3 "$BATS_TEST_DIRNAME/registry_between.py" "$1" ${2:+"$2"} >"$1/errors" 2>&1 3>&- &
	started+=("$!")
	until [[ -e $1/port ]]; do
		kill -0 "${started[-1]}" || { cat "$1/errors"; return 1; }
		sleep 0.05
	done
	between=127.0.0.1:$(<"$1/port")
}

# Ends what a test has started.
stop_started() {
	local pid
	for pid in "${started[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	started=()
}

# An authority and a certificate of 127.0.0.1 by it: ca.pem, cert.pem, key.pem.
certificates() { # DIRECTORY
	mkdir -p "$1"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=an authority' \
		-keyout "$1/ca.key" -out "$1/ca.pem" 2>/dev/null
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=127.0.0.1' \
		-keyout "$1/key.pem" -out "$1/cert.csr" 2>/dev/null
	openssl x509 -req -in "$1/cert.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial -days 2 \
		-extfile <(echo 'subjectAltName=IP:127.0.0.1') -out "$1/cert.pem" 2>/dev/null
}

# A file as docker login writes it.
auth_file() { # FILE HOST USER:PASSWORD
	printf '{"auths":{"%s":{"auth":"%s"}}}' "$2" "$(printf %s "$3" | base64 -w0)" >"$1"
	chmod 644 "$1"
}

# Which requests of a path were logged: Range and Authorization of each.
asked() { # DIRECTORY REGEX
	awk -v path="$2" '$2 ~ path {print $3, $4}' "$1/log"
}

# What a SIF's root file system has in a file.
inside_of() { # SIF FILE
	unsquashfs -o "$(coracle_offset "$1")" -cat "$1" "$2"
}

# Where the root file system begins: the squashfs' magic at the first boundary that has it.
coracle_offset() { # SIF
	python3 -c '
import sys
data = open(sys.argv[1], "rb").read()
print(next(at for at in range(0, len(data), 4096) if data[at:at + 4] == b"hsqs"))' "$1"
}
