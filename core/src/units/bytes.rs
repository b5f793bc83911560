//! Texts that are short.

/// Whether two texts are equal. Up to 32 bytes without a call: on the hot path `memcmp` of a name costs more than all
/// that is found by it.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        0 => true,
        1..=3 => a.iter().zip(b).all(|(a, b)| a == b),
        4..=7 => ends::<4>(a) == ends::<4>(b),
        8..=15 => ends::<8>(a) == ends::<8>(b),
        16..=32 => ends::<16>(a) == ends::<16>(b),
        _ => a == b,
    }
}

/// The first and the last `N` bytes, which may overlap: all of a text up to twice as long.
#[inline]
fn ends<const N: usize>(text: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (text.first_chunk(), text.last_chunk())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_comparing_says(
            a in proptest::collection::vec(any::<u8>(), 0..80),
            at in any::<prop::sample::Index>(),
            by in 0..=255_u8,
        ) {
            let mut b = a.clone();
            prop_assert!(same(&a, &b));
            if !a.is_empty() {
                b[at.index(a.len())] ^= by;
                prop_assert_eq!(same(&a, &b), by == 0);
                prop_assert!(!same(&a, &a[1..]));
            }
        }
    }
}
