//! How long what programs without a library do waits for one.
use super::*;

#[test]
fn a_call_of_a_program_without_a_library_waits_only_where_one_may_be_about_to_speak() {
    // A library that ran before we listened may not have found us yet.
    let mut matcher = Matcher::new(S);
    matcher.exchange(exchange("/a", S, 2 * S, 200));
    matcher.connection(progress(Completeness::Complete, 1), 2 * S);
    assert_eq!(tally(matcher.due(2 * S + HOLD - 1)), (0, 0, vec![]));
    assert_eq!(tally(matcher.due(2 * S + HOLD + SLACK)), (1, 0, vec![ExplainedBy::Kernel]));

    // Later, nobody who has one makes a call before it has.
    let later = S + GATHERING;
    matcher.exchange(exchange("/b", later, later + S, 200));
    matcher.connection(progress(Completeness::Complete, 1), later + S);
    assert_eq!(tally(matcher.due(later + S + GLANCE - 1)), (0, 0, vec![]));
    assert_eq!(tally(matcher.due(later + S + GLANCE)), (1, 0, vec![]));
    assert_eq!(tally(matcher.due(later + S + GLANCE + SLACK)), (0, 0, vec![ExplainedBy::Kernel]));

    // One that has connected says hello at its next flush; calls of others do not wait for it.
    matcher.came(PID);
    let mut other = exchange("/other", later, later + 2 * S, 200);
    other.process = Arc::new(Identity { tgid: PID + 1, ..(*process()).clone() });
    matcher.exchange(exchange("/c", later + S, later + 2 * S, 200));
    matcher.exchange(other);
    assert_eq!(tally(matcher.due(later + 2 * S + GLANCE)), (1, 0, vec![]));
    matcher.hello(PID, Hello { since: later, sightings_from: later, at: later + 3 * S });
    matcher.sightings(PID, vec![sighting("/c", later + S, later + 2 * S, 200, 1)]);
    assert_eq!(tally(matcher.due(later + 9 * S)), (0, 1, vec![]));
    matcher.left(PID, later + 9 * S, true);
    matcher.due(later + 9 * S + FAREWELL + S);
    assert!(!matcher.may_have_library(PID, later + 20 * S), "the next process of its number is another");
}
