//! Whole numbers as people read them.

/// A whole number with a comma before each three digits.
///
/// ```
/// assert_eq!(farcall::units::grouped(1_234_567), "1,234,567");
/// ```
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
