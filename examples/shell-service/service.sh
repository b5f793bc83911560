#!/usr/bin/env bash
# A cron-like shell script with curl: nobody instrumented it, the sidecar sees it from below.
# usage: service.sh SECONDS
set -u
end=$((SECONDS + ${1:?usage: service.sh SECONDS}))
quiet=(--silent --show-error --output /dev/null --max-time 5 --http1.1)
webhook=https://hooks.slack.com/services/T024BE7LD/B024BE7LH/dGhpc2lzbm90YXNlY3JldA
while [ "$SECONDS" -lt "$end" ]; do
    # One process, one connection, two requests; then a notice to the team.
    curl "${quiet[@]}" https://api.github.com/repos/acme/shop/issues/42 --next "${quiet[@]}" https://api.github.com/repos/acme/shop/pulls/7
    curl "${quiet[@]}" --json '{"text": "nightly export: 3 issues open"}' "$webhook"
    curl "${quiet[@]}" https://app.launchdarkly.com/sdk/latest-all
    sleep 0.4
done
