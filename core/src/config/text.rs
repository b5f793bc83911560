//! The bytes of a file as text: TOML is UTF-8, and nothing else.

use super::ConfigError;

/// The text of a configuration file, or of a scenario; `file` is the name that errors show.
///
/// # Errors
/// Where the bytes are not UTF-8: the place of the first that is not.
pub fn text_of(file: &str, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
        let byte = bytes.get(valid).copied().unwrap_or_default();
        let what = format!("this is not UTF-8: the byte 0x{byte:02x}; save the file as UTF-8");
        ConfigError::at(file, text, valid, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(bytes: &[u8]) -> String {
        text_of("f", bytes.into()).unwrap_err().to_string()
    }

    #[test]
    fn the_first_byte_that_is_not_utf_8_is_named_with_its_place() {
        let wrong = "; save the file as UTF-8";
        assert_eq!(
            error(b"a = 1\n# caf\xe9\nb\xff"),
            format!("f:2:6: this is not UTF-8: the byte 0xe9{wrong}")
        );
        // Columns are characters; a character that breaks off is wrong from its first byte.
        assert_eq!(
            error(b"\xc3\xa9 = '\xe2\x82'"),
            format!("f:1:6: this is not UTF-8: the byte 0xe2{wrong}")
        );
        assert_eq!(error(&[0xff, 0xfe, b'a', 0]), format!("f:1:1: this is not UTF-8: the byte 0xff{wrong}"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_text_stays_as_it_is(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = text_of("f", bytes.clone());
            prop_assert_eq!(text.ok(), String::from_utf8(bytes).ok());
        }
    }
}
