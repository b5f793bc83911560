//! About how many tokens a prompt has, before the vendor counts them.

/// Bytes of a request's JSON for a token, on average; English text in JSON has a little more.
pub(super) const BYTES_A_TOKEN: u64 = 4;
/// What stands in a request as one long word is a picture, a sound or a file in base64. For a picture Anthropic counts up to
/// about 1,600 tokens ("Vision", "Calculate image costs"), OpenAI up to 1,445 for gpt-4o ("Images and vision").
const TOKENS_A_BLOB: u64 = 1_600;
/// A string of so many bytes without a space in it is no text.
const BLOB: usize = 4_096;
/// Every so many bytes of a long string one is looked at: text has a space within each few of these looks.
const STRIDE: usize = 32;

/// About how many tokens a prompt has whose request's body begins with `content` and has so many bytes: a token for every
/// four bytes of text, and a fixed sum for each string that is one long word. What comes after `content` is of the kind
/// that it ends in. Allocates nothing.
#[must_use]
pub fn prompt_tokens(content: &[u8], bytes: u64) -> u64 {
    let strings = || content.split(|byte| *byte == b'"');
    let (blobs, length) = strings()
        .filter(|string| is_blob(string))
        .fold((0_u64, 0_u64), |(blobs, length), string| (blobs + 1, length + string.len() as u64));
    let goes_on = strings().next_back().is_some_and(is_blob);
    let rest = if goes_on { bytes.saturating_sub(content.len() as u64) } else { 0 };
    bytes.saturating_sub(length + rest).div_ceil(BYTES_A_TOKEN).saturating_add(blobs * TOKENS_A_BLOB)
}

fn is_blob(string: &[u8]) -> bool {
    // After what comes before the data of a `data:` URL. `\` as in `\/`, which some serialisers write.
    let is_data =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\');
    string.len() >= BLOB && string.iter().skip(4 * STRIDE).step_by(STRIDE).all(is_data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with a text of so many words and pictures of so many bytes.
    fn request(words: usize, pictures: &[usize]) -> String {
        let pictures: Vec<String> = pictures
            .iter()
            .map(|bytes| {
                let data: String =
                    ('A'..='z').filter(char::is_ascii_alphanumeric).cycle().take(*bytes).collect();
                format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#)
            })
            .collect();
        let text = "many words are said here ".repeat(words / 5);
        format!(
            r#"{{"model":"gpt-4o","messages":[{{"content":[{{"text":"{text}"}},{}]}}]}}"#,
            pictures.join(",")
        )
    }

    fn tokens(body: &str, seen: usize) -> u64 {
        prompt_tokens(&body.as_bytes()[..seen.min(body.len())], body.len() as u64)
    }

    #[test]
    fn text_is_a_token_for_every_four_bytes() {
        for words in [0, 5, 100, 50_000] {
            let body = request(words, &[]);
            assert_eq!(tokens(&body, usize::MAX), (body.len() as u64).div_ceil(4));
            assert_eq!(tokens(&body, 0), (body.len() as u64).div_ceil(4), "nothing of it is seen");
        }
        let chinese = "\u{4f60}\u{597d}".repeat(5_000);
        assert_eq!(tokens(&chinese, usize::MAX), (chinese.len() as u64).div_ceil(4));
    }

    #[test]
    fn a_picture_is_no_text_however_large_it_is() {
        let text = tokens(&request(1_000, &[]), usize::MAX);
        for pictures in [&[5_000_000][..], &[100_000, 200_000], &[20_000; 5]] {
            let body = request(1_000, pictures);
            let found = tokens(&body, usize::MAX);
            let expected = text + pictures.len() as u64 * TOKENS_A_BLOB;
            assert!(found.abs_diff(expected) < 50 * pictures.len() as u64, "{found} and {expected}");
        }
    }

    #[test]
    fn what_is_not_seen_is_of_the_kind_that_is_seen_last() {
        let body = request(1_000, &[5_000_000]);
        let (all, part) = (tokens(&body, usize::MAX), tokens(&body, 64 * 1024));
        assert!(all.abs_diff(part) < 100, "{all} and {part}");
    }

    #[test]
    fn absurd_lengths_are_no_panic() {
        assert_eq!(prompt_tokens(b"", u64::MAX), u64::MAX / 4 + 1);
        assert_eq!(prompt_tokens(&[b'A'; 100_000], 0), TOKENS_A_BLOB);
        assert!(prompt_tokens(&[b'A'; 100_000], u64::MAX) < 2 * TOKENS_A_BLOB);
    }
}
