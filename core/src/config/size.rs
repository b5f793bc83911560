//! Numbers of bytes as people write them.

/// Reads `"512"`, `"10KB"` (1,000 each) or `"64KiB"` (1,024 each), up to `GiB`. `None` for anything else.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let letters = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[letters..].trim_start() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..letters].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_sizes_in_these_ways() {
        for (text, bytes) in [("512", 512), ("64KiB", 65_536), ("1 MB", 1_000_000), ("0", 0)] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MB", "1 fortnight", "99999999999GiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
