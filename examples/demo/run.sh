#!/bin/bash
# The demo: Argo CD may reach GitHub over HTTPS and nothing else, shown on an internet of our own.
#
# In:  root (sudo is used where it is there); NAMEGATE, the binary (default target/release/namegate).
# Out: a screen to read, and status 0 only when everything behaved as promised.
# Touches nothing: two network namespaces and a temporary folder, gone at the end however it ends.
set -euo pipefail

cd "$(dirname "$0")/../.."
NAMEGATE=$(realpath -m "${NAMEGATE:-target/release/namegate}")
POLICY=examples/policies/argocd-to-github.yaml

if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo 'the demo makes network namespaces: run it as root' >&2
        exit 1
    fi
    exec sudo NAMEGATE="$NAMEGATE" examples/demo/run.sh "$@"
fi
PATH=$PATH:/usr/sbin:/sbin
for program in ip nft nsenter unbound nginx curl dig openssl; do
    if ! command -v "$program" >/dev/null; then
        echo "\`$program\` is missing: run scripts/setup --for demo" >&2
        exit 1
    fi
done
if [ ! -x "$NAMEGATE" ]; then
    echo "there is no namegate at \`$NAMEGATE\`: run \`make build\`, or set NAMEGATE" >&2
    exit 1
fi

# --- names and addresses of the small internet --------------------------------------------------

RESOLVER=203.0.113.53
GITHUB=203.0.113.70
API=203.0.113.71
EVIL=203.0.113.66
NEVER=203.0.113.67

machine=ngdemo-$$-machine
internet=ngdemo-$$-internet
files=$(mktemp -d)
chmod 755 "$files"
servers=()
failures=0

cleanup() {
    local status=$?
    trap - EXIT
    exec 2>/dev/null
    for pid in "${servers[@]}"; do kill "$pid"; done
    for netns in "$machine" "$internet"; do
        ip netns pids "$netns" | xargs -r kill -9
        ip netns del "$netns"
    done
    rm -rf "$files"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

inside() { # NETNS COMMAND…
    nsenter --net="/run/netns/$1" -- "${@:2}"
}

bold='' red='' green='' cyan='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
fi

bold() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

show() { # a command as somebody would type it
    printf '\n%s$ %s%s\n' "$cyan" "$*" "$plain"
}

check() { # WHAT WAS EXPECTED
    if [ "$2" = "$3" ]; then return; fi
    failures=$((failures + 1))
    printf '  %sNOT AS PROMISED:%s %s: %s, not %s\n' "$red" "$plain" "$1" "${2:-nothing}" "${3:-nothing}"
}

# --- the internet ---------------------------------------------------------------------------------

ip netns add "$machine"
ip netns add "$internet"
ip -n "$internet" link set lo up
ip -n "$machine" link set lo up
ip -n "$internet" link add uplink type veth peer name eth0 netns "$machine"
ip -n "$internet" address add 198.51.100.1/24 dev uplink
ip -n "$machine" address add 198.51.100.2/24 dev eth0
ip -n "$internet" link set uplink up
ip -n "$machine" link set eth0 up
ip -n "$machine" route add default via 198.51.100.1
for address in $RESOLVER $GITHUB $API $EVIL $NEVER; do
    ip -n "$internet" address add "$address/32" dev lo
done

cat >"$files/root.zone" <<ZONE
. 3600 IN SOA ns.test. root.test. 1 3600 600 86400 5
. 3600 IN NS ns.test.
ns.test. 3600 IN A $RESOLVER
github.com. 60 IN A $GITHUB
api.github.com. 60 IN CNAME lb.github.com.
lb.github.com. 30 IN A $API
evil.test. 300 IN A $EVIL
ZONE
cat >"$files/unbound.conf" <<CONF
server:
  directory: "$files"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  interface: $RESOLVER
  access-control: 0.0.0.0/0 allow
  module-config: "iterator"
  local-zone: "test." nodefault
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: "$files/root.zone"
  for-downstream: yes
  for-upstream: no
CONF
(
    cd "$files"
    echo 'subjectAltName=DNS:github.com,DNS:*.github.com,DNS:evil.test' >names.txt
    curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${curve[@]}" -days 1 -subj '/CN=demo authority' -keyout authority.key -out authority.pem
    openssl req "${curve[@]}" -subj '/CN=demo server' -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -set_serial 2 -days 1 \
        -extfile names.txt -out server.pem
) >"$files/openssl.log" 2>&1 || { cat "$files/openssl.log" >&2; exit 1; }
cat >"$files/nginx.conf" <<CONF
daemon off;
user root;
worker_processes 1;
pid $files/nginx.pid;
error_log $files/nginx.log warn;
events {}
http {
  log_format short '\$scheme://\$host';
  access_log $files/access.log short;
  client_body_temp_path $files/body;
  proxy_temp_path $files/proxy;
  fastcgi_temp_path $files/fastcgi;
  uwsgi_temp_path $files/uwsgi;
  scgi_temp_path $files/scgi;
  server {
    listen 80;
    listen 443 ssl;
    ssl_certificate $files/server.pem;
    ssl_certificate_key $files/server.key;
    location / { return 200 "hello\n"; }
  }
}
CONF
inside "$internet" unbound -d -p -c "$files/unbound.conf" >"$files/unbound.log" 2>&1 &
servers+=($!)
inside "$internet" nginx -e "$files/nginx.log" -c "$files/nginx.conf" >>"$files/nginx.log" 2>&1 &
servers+=($!)
ready() {
    inside "$machine" dig +time=1 +tries=1 +short @$RESOLVER github.com 2>/dev/null | grep -q $GITHUB &&
        inside "$machine" curl -sk --max-time 1 -o /dev/null "https://$GITHUB/"
}
for _ in $(seq 100); do ready && break || sleep 0.1; done
ready || { echo 'the servers of the demo do not answer:' >&2; cat "$files"/*.log >&2; exit 1; }
# Before namegate stands in the way, everything is open: what is refused later is refused by it.
for url in "https://$EVIL/" "http://$GITHUB/" "https://$NEVER/"; do
    if ! inside "$machine" curl -sk --max-time 2 -o /dev/null "$url"; then
        echo "the demo's own $url does not answer" >&2
        exit 1
    fi
done
: >"$files/access.log"

# --- the run --------------------------------------------------------------------------------------

bold 'Argo CD may reach GitHub over HTTPS, and nothing else'
echo 'A small internet of our own is up: unbound answers for names, nginx serves HTTPS.'
printf '\nThe policy, %s:\n\n' "$POLICY"
sed -n '/^  egress:/,$p' "$POLICY" | sed 's/^/  /'

mkfifo "$files/end"
export GREEN=$green RED=$red PLAIN=$plain RESULTS="$files/results" END="$files/end" NEVER CURL_CA_BUNDLE="$files/authority.pem"
: >"$RESULTS"
# The job runs as whoever called sudo, and writes its results here.
[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$files"
show "namegate run --policy $POLICY --namespace argocd \\
    --dns $RESOLVER --report report.json -- examples/demo/job.sh"
inside "$machine" "$NAMEGATE" run --policy "$POLICY" --namespace argocd --dns $RESOLVER \
    --report "$files/report.json" --socket "$files/namegate.sock" \
    -- examples/demo/job.sh 2>"$files/summary" &
namegate=$!
for _ in $(seq 250); do
    if [ -e "$RESULTS.done" ] || ! kill -0 $namegate 2>/dev/null; then break; fi
    sleep 0.1
done
if [ ! -e "$RESULTS.done" ]; then
    cat "$files/summary" >&2
    echo 'the job did not get to its end' >&2
    exit 1
fi

bold 'What DNS taught, from the run while it is still there'
show 'namegate fqdn cache list'
inside "$machine" "$NAMEGATE" fqdn cache list --socket "$files/namegate.sock" | tee "$files/cache"

show 'namegate observe --verdict DROPPED --last 3'
inside "$machine" "$NAMEGATE" observe --verdict DROPPED --last 3 --socket "$files/namegate.sock" | tee "$files/observed"

echo end >"$files/end"
status=0
wait $namegate || status=$?

bold 'What namegate says at the end'
cat "$files/summary"

# --- does all of this agree with what was promised? -------------------------------------------------

result() { sed -n "s/^$1 //p" "$RESULTS"; }
part() { # PART NEXT-PART: that part of the report, on one line without spaces
    [ -e "$files/report.json" ] || return 0
    tr -d '[:space:]' <"$files/report.json" | sed "s/.*\"$1\":\[\(.*\)\],\"$2\".*/\1/"
}
has() { if printf '%s' "$1" | grep -qF -- "$2"; then echo yes; else echo no; fi; }

echo
check 'the status of the job' "$status" 0
check 'https://github.com/ with its certificate verified' "$(result tls)" verified
check 'https://github.com/' "$(result apex)" 200
check 'https://api.github.com/' "$(result api)" 200
check 'https://evil.test/' "$(result other)" refused
check 'http://github.com/' "$(result port80)" refused
check "https://$NEVER/" "$(result address)" refused
check 'requests for other names or ports in the log of the web server' \
    "$(grep -cv -e '^https://github.com$' -e '^https://api.github.com$' "$files/access.log" || true)" 0
for column in Endpoint Source FQDN TTL ExpirationTime IPs; do
    check "the column $column of the cache" "$(has "$(head -1 "$files/cache")" "$column")" yes
done
check "github.com's address in the cache" "$(has "$(grep -F ' github.com. ' "$files/cache" || true)" $GITHUB)" yes
allowed=$(part allowed denied)
denied=$(part denied lookups)
check 'github.com among the allowed in the report' "$(has "$allowed" "\"address\":\"$GITHUB\",\"port\":443")" yes
check 'api.github.com among the allowed in the report' "$(has "$allowed" "\"address\":\"$API\",\"port\":443")" yes
check 'the other name among the denied in the report' "$(has "$denied" "\"address\":\"$EVIL\",\"port\":443")" yes
check 'port 80 among the denied in the report' "$(has "$denied" "\"address\":\"$GITHUB\",\"port\":80")" yes
check 'the address never resolved among the denied in the report' "$(has "$denied" "\"address\":\"$NEVER\",\"port\":443")" yes
check 'a reason for each refusal on the screen' "$(has "$(cat "$files/summary")" 'Policy denied')" yes
check 'a dropped connection in observe' "$(has "$(cat "$files/observed")" DENIED)" yes
left=$(inside "$machine" ip -o link show | grep -cv -e ' lo:' -e ' eth0@' || true)
check 'links left behind on the machine' "$left" 0
check 'nftables left behind on the machine' "$(inside "$machine" nft list ruleset)" ''

if [ $failures -ne 0 ]; then
    printf '%s%s of the promises above were not kept.%s\n' "$red" "$failures" "$plain"
    exit 1
fi
printf '%sAll as promised: 2 names reached, 3 ways refused, nothing left behind.%s\n' "$green" "$plain"
printf 'Next, with a command of your own:  sudo %s run --allow example.com -- curl https://example.com/\n' \
    "${NAMEGATE#"$PWD"/}"
