#!/bin/bash
# What runs inside `namegate run` in the demo: a job that fetches what it may, and tries what it may not.
#
# In:  RESULTS, a file for one line per request; END, a pipe whose first line ends the job;
#      NEVER, an address whose name nobody asks for; GREEN, RED, PLAIN, colours or nothing.
# Out: a line per request on the screen, and in RESULTS: KEY, then the HTTP status or `refused`.
set -u

request() { # KEY URL WHAT-IT-IS
    local key=$1 url=$2 what=$3 out status=0
    # A dropped packet is answered by silence, so a refusal looks like a timeout from in here.
    out=$(curl -sk --connect-timeout 1.5 --max-time 5 -o /dev/null -w '%{http_code} %{remote_ip}' "$url" 2>&1) || status=$?
    if [ $status -eq 0 ]; then
        printf '%s %s\n' "$key" "${out%% *}" >>"$RESULTS"
        printf '  %s✓ HTTP %s%s  %-34s %s (%s)\n' "$GREEN" "${out%% *}" "$PLAIN" "$url" "$what" "${out##* }"
    elif [ $status -eq 28 ] || [ $status -eq 7 ]; then
        printf '%s refused\n' "$key" >>"$RESULTS"
        printf '  %s✗ refused %s  %-34s %s\n' "$RED" "$PLAIN" "$url" "$what"
    else
        printf '%s curl-%s\n' "$key" "$status" >>"$RESULTS"
        printf '  ? curl %-4s  %-34s %s\n' "$status" "$url" "$what"
    fi
}

# Once with the certificate checked: what was reached is what was asked for.
curl -sS --max-time 8 -o /dev/null https://github.com/ && printf 'tls verified\n' >>"$RESULTS"

request apex https://github.com/ 'the apex, allowed by matchName'
request api https://api.github.com/ 'a subdomain, allowed by matchPattern'
request other https://evil.test/ 'another name'
request port80 http://github.com/ 'the right name on port 80'
request address "https://$NEVER/" 'an address that was never resolved'

echo asked >"$RESULTS.done"
read -r _ <"$END"
