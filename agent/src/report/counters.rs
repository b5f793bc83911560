//! What the counters of engine and agent mean, in words.

/// Whether somebody should look at a counter that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// As it should be, or somebody else's doing.
    Fine,
    /// Something was not done as asked.
    Look,
}

use Weight::{Fine, Look};

/// Name, meaning and weight of each; docs/report.md has the same names.
const MEANINGS: [(&str, &str, Weight); 94] = [
    ("unreadable_targets", "calls whose URL could not be read, counted under the vendor `unreadable`", Look),
    ("cut_names", "customers or tags that were too long or too many, and were cut", Fine),
    ("folded_vendors", "calls whose vendor was added to `other`, because there were too many", Fine),
    ("folded_endpoints", "calls whose endpoint was added to `other`, because there were too many", Fine),
    ("folded_customers", "calls whose customer was added to `other`, because there were too many", Fine),
    ("folded_tags", "calls whose tags were added to `other`, because there were too many", Fine),
    ("folded_series", "calls that were added to a less detailed series; totals stay exact", Fine),
    ("folded_callers", "callers that were added to the engine's own, because there were too many", Fine),
    ("folded_rows", "calls whose customer was added to `other`, because a minute had too many rows", Fine),
    ("folded_policies", "statements of vendors about more quotas than are told apart", Fine),
    (
        "unkept_rules",
        "budgets and quotas that were not asked, because 65,536 of a kind were in use, or more than four budgets or three quotas are about the same calls",
        Look,
    ),
    ("lost_sightings", "calls that the sidecar was not told of, and may count again", Look),
    ("untold_sightings", "calls that the sidecar did not read fast enough, and may count again", Look),
    ("relearned", "times that the learner of endpoints was full and started anew", Fine),
    ("foreign_calls", "calls that began before a fork and ended in the child; the parent counts them", Fine),
    (
        "ignored_limits",
        "rate-limit headers that were malformed, could not be true, or had two values that differ",
        Fine,
    ),
    (
        "unread_requests",
        "calls whose body a budget or a quota of tokens goes by, and that the adapter could not show: too little was reserved for them",
        Look,
    ),
    (
        "untold_conditions",
        "calls for which the `when` of a [[policy]] could not be told, such as for a tag that they do not have: its `on_error` decided; `farcall explain call` names the rule",
        Look,
    ),
    (
        "uncached_calls",
        "calls that [[cache]] is about, by an adapter that cannot hand out what is kept",
        Look,
    ),
    ("purged_answers", "answers that `farcall cache purge` made the cache forget", Fine),
    (
        "unparkable_calls",
        "calls that [[outbox]] would have parked, by an adapter that cannot hand them over",
        Look,
    ),
    (
        "unparked_calls",
        "calls that were to be parked and that the outbox did not take: they failed; `farcall report calls` says why",
        Look,
    ),
    ("delivered_calls", "calls that were delivered from the outbox", Fine),
    ("failed_deliveries", "attempts to deliver a call from the outbox that the vendor did not take", Fine),
    (
        "given_up_calls",
        "calls of the outbox that became dead letters; `farcall outbox ls --state dead`",
        Fine,
    ),
    ("failed_exports", "messages with metrics that the collector of [otlp] did not take", Look),
    ("told_alarms", "alarms that went out", Fine),
    ("untold_alarms", "alarms that went out by no way but stderr; `farcall alarm test` tries them", Look),
    ("lost_alarms", "alarms that were dropped, because too many waited", Look),
    (
        "failed_alarm_ways",
        "times that an alarm did not go out by one of its ways, whether or not another took it; `farcall alarm test` tries them",
        Look,
    ),
    (
        "unfetched_answers",
        "looks of the cache beyond memory that took too long: the call went on without",
        Look,
    ),
    ("failed_cache_reads", "looks of the cache beyond memory that failed, or came too late to be made", Look),
    (
        "untold_changes",
        "times that other hosts could not be told, or asked, what requests with unsafe methods changed",
        Look,
    ),
    ("unwritten_answers", "answers that were not written where other processes would find them", Look),
    ("unreadable_answers", "kept answers that were not whole, or sealed by another key, and are gone", Look),
    ("unshared_caches", "starts in which the cache could not be shared as the file says", Look),
    ("breaker_refusals", "calls that an open breaker refused", Fine),
    ("refused_calls", "calls that a rule refused; `farcall report calls` shows which", Fine),
    (
        "overlooked_calls",
        "calls that a rule would have held up, stopped or answered, and that went out all the same: nobody could ask in time, as under a client that is only looked on at",
        Look,
    ),
    (
        "node_unapplied_changes",
        "calls of undici, or further hops under fetch, that went out without the change or time limit that a rule has for them",
        Look,
    ),
    (
        "node_unkept_bodies",
        "bodies that Node did not keep for another attempt or for the outbox, because it keeps too much already",
        Look,
    ),
    ("reloads", "times that changed rules were put in force", Fine),
    (
        "unchanged_settings",
        "changes of [[vendor]], [share], [ledger] and others that take a restart to be in force",
        Look,
    ),
    (
        "skipped_shadows",
        "shadow copies that were not sent: too many were under way, or they would have had to wait",
        Fine,
    ),
    (
        "ungrouped_attempts",
        "failed attempts of SDKs that were counted as calls of their own, because too many waited",
        Fine,
    ),
    ("unadvised_calls", "calls to endpoints for which advice had no room; they are counted", Fine),
    (
        "lost_advice",
        "calls that advice, or a finding about a rule of the policy, says nothing of, after nothing could be written for too long",
        Fine,
    ),
    ("misplaced_events", "events of an adapter in an impossible order, which were ignored", Look),
    ("failed_flushes", "flushes that could not be written, and were tried again later", Look),
    ("failed_upkeep", "times that old rows of the ledger could not be added up or removed", Look),
    ("lost_calls", "calls that were dropped after nothing could be written for too long", Look),
    (
        "lost_spending",
        "sums of budgets that no other process learns of, after nothing could be written for too long",
        Look,
    ),
    (
        "lost_quotas",
        "changes of quotas that reports do not show, after nothing could be written for too long",
        Fine,
    ),
    ("lost_connections", "connections that were dropped after nothing could be written for too long", Look),
    (
        "lost_confirmations",
        "calls that the sidecar saw too and could not note as such; they are counted",
        Look,
    ),
    ("lost_exemplars", "failed calls that are not kept one by one, because there were too many", Look),
    ("corrupt_ledgers", "damaged ledgers that were moved aside", Look),
    ("config_errors", "errors in farcall.toml; `farcall config check` shows them", Look),
    (
        "rejected_reloads",
        "changes of farcall.toml that were not put in force: errors in it, or it was removed",
        Look,
    ),
    ("lost_incidents", "incidents and notices that were dropped, because there were too many", Look),
    (
        "missing_keys",
        "times that the installation's key could not be had; credentials are known to this process alone",
        Look,
    ),
    (
        "unshared_homes",
        "times that the memory of shared quotas could not be had; each process keeps its own",
        Look,
    ),
    ("unshared_quotas", "quotas that found no room in shared memory; each process keeps its own", Look),
    ("evicted_quotas", "quotas that left shared memory after a day without use", Fine),
    (
        "unshared_canaries",
        "canaries that found no room in shared memory; each process weighs its own calls",
        Look,
    ),
    (
        "unanswered_leases",
        "requests to Redis that failed; meanwhile this host goes by its own share, and refuses calls under quotas with on_error = \"refuse\"",
        Look,
    ),
    (
        "broken_leases",
        "questions to Redis about one quota, under whose keys something else lies; this host goes by its own share of it",
        Look,
    ),
    ("unleased_quotas", "quotas of a fleet without Redis; this host goes by its own share", Look),
    ("late_forks", "forks that nobody announced; they were noticed by the child's first call", Look),
    ("panics", "errors of farcall's own that were caught", Look),
    ("sidecar_ring_full", "records that found no room between kernel and sidecar", Look),
    ("sidecar_ring_pressure", "pieces of payload withheld so that connections keep their room", Look),
    ("sidecar_unreadable_buffers", "buffers of applications that could not be read", Look),
    ("sidecar_too_many_connections", "connections beyond the 65,536 that are followed at once", Look),
    ("sidecar_too_many_tls_calls", "calls of TLS libraries beyond the 16,384 followed at once", Look),
    ("sidecar_too_many_tls_streams", "TLS streams beyond those followed at once", Look),
    ("sidecar_unreadable_packets", "packets whose payload could not be read", Look),
    (
        "sidecar_skipped_programs",
        "times that the kernel skipped a program that would have nested in itself (recursion_misses)",
        Look,
    ),
    ("sidecar_undecodable_records", "records of programs of another build", Look),
    ("sidecar_unfollowed_pieces", "pieces of streams beyond those followed at once", Look),
    ("sidecar_calls_without_process", "calls whose process was unknown, and which are not counted", Look),
    (
        "sidecar_unread_hosts_files",
        "hosts files too large or too many to be read: connections may show an address for their name",
        Look,
    ),
    (
        "sidecar_unprobed_libraries",
        "TLS libraries that could not be probed; stderr of the sidecar says why",
        Look,
    ),
    (
        "sidecar_ends_found_late",
        "connections whose end no program saw; found gone within seconds, with their bytes",
        Fine,
    ),
    (
        "sidecar_cgroup_made_anew",
        "times that the watched cgroup was removed and made anew, as when its service restarts; followed within 0.1 s",
        Fine,
    ),
    (
        "sidecar_turned_away",
        "programs that the sidecar does not listen to, because there were too many or it could not tell who they are: it may count their calls again",
        Look,
    ),
    (
        "sidecar_skipped_but_seen_otherwise",
        "times that the kernel skipped a program (recursion_misses) and another one saw the same",
        Fine,
    ),
    (
        "python_hook_errors",
        "exceptions in a hook of the Python adapter; the calls went on as without it",
        Look,
    ),
    ("node_hook_errors", "exceptions in a hook of the Node adapter; the calls went on as without it", Look),
    (
        "tower_panics",
        "errors of the tower layer's own that were caught; the calls went on as without it",
        Look,
    ),
    (
        "tower_without_timer",
        "waits that had no timer, because no runtime of Tokio with time enabled was there",
        Look,
    ),
    (
        "reqwest_unseen_redirects",
        "calls whose redirects reqwest followed by a policy that is not farcall's: the hops were counted as one call, and no rule was asked for the later ones",
        Look,
    ),
    (
        "reqwest_unchanged_redirects",
        "further hops of redirects that went out as reqwest makes them, without what a rule changes in requests",
        Look,
    ),
    ("other_failures", "failures of an adapter beyond those told apart", Look),
];

/// What a counter means, and whether it matters; `None` for one that this version does not know.
pub(super) fn meaning(name: &str) -> Option<(&'static str, Weight)> {
    let found = MEANINGS.iter().find(|(known, ..)| *known == name);
    found.map(|(_, meaning, weight)| (*meaning, *weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tallies;
    use farcall::Counters;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// The names in the quotes of a text.
    fn quoted(text: &str, sign: char) -> impl Iterator<Item = &str> {
        text.split(sign).skip(1).step_by(2).filter(|name| {
            name.len() > 3 && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        })
    }

    /// What the sources of a folder count under names of their own.
    fn counted(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                counted(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let mut add = |text: &str| names.extend(quoted(text, '"').map(str::to_owned));
                for (start, end) in
                    [("count_failure(\"", ")"), ("count_failures(\"", ")"), ("(\"sidecar_", ",")]
                {
                    for after in text.split(start).skip(1) {
                        let name = after.split(end).next().unwrap();
                        add(&format!("{}{name}", start.rsplit_once('(').unwrap().1));
                    }
                }
                for after in text.split("fn counters(&self)").skip(1) {
                    let lines = after.split("\n    }\n").next().unwrap().lines();
                    lines.filter(|line| !line.contains("#[cfg(")).for_each(&mut add);
                }
            }
        }
    }

    #[test]
    fn every_counter_has_a_meaning_and_one_line_in_the_documentation() {
        let report = include_str!("../../../docs/report.md");
        let (_, table) = report.rsplit_once("| counter | meaning |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut documented = Vec::new();
        rows.for_each(|row| documented.extend(quoted(row.split('|').nth(1).unwrap(), '`')));
        documented.sort_unstable();
        let twice: Vec<_> = documented.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?} stand in two lines of docs/report.md");

        let mut names: BTreeSet<String> =
            Counters::default().named().into_iter().map(|(name, _)| name.into()).collect();
        names.extend(Tallies::default().all().into_iter().map(|(name, _)| name));
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for place in ["agent", "tower-layer", "py", "node", "ebpf-sidecar"] {
            counted(&workspace.join(place).join("src"), &mut names);
        }
        names.insert("other_failures".to_owned());
        assert!(names.len() > 80, "{names:?}");
        let meant: BTreeSet<String> = MEANINGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(names, meant, "what is counted, and what has a meaning here");
        let documented: BTreeSet<String> = documented.into_iter().map(str::to_owned).collect();
        assert_eq!(documented, meant, "what docs/report.md has, and what has a meaning here");
    }
}
