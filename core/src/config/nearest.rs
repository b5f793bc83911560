//! What was meant by a name that nobody has.

/// The one of these names that `wanted` is most like, whichever letters are capitals; `None` where it is like none.
#[must_use]
pub fn nearest_name<'k>(wanted: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = wanted.to_lowercase();
    let likeness = |known: &str| {
        let known = known.to_lowercase();
        // In a word of three letters, two in each other's place are nothing alike to the measure.
        if strsim::osa_distance(&lower, &known) == 1 { 1.0 } else { strsim::jaro_winkler(&lower, &known) }
    };
    let nearest = known.into_iter().map(|known| (likeness(known), known));
    let (likeness, nearest) = nearest.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (likeness > 0.7).then_some(nearest)
}
