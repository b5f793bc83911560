//! Reads from a request what its cost can be estimated by, and writes another model into it.

use super::fields::{Field, Fields};
use super::scan::{Event, Scanner, Token, find};
use super::usage::{MAX_COUNT, ModelName, ServiceTier};
use crate::units::decimal;

/// Reads the model, the tier and the most tokens of the answer from the JSON of a request, in chunks of any
/// size; allocates nothing.
#[derive(Clone, Debug)]
pub struct RequestReader {
    scanner: Scanner,
    left: usize,
    model: ModelName,
    tier: ServiceTier,
    max_output: Option<u64>,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestReader {
    /// Bytes of a request that are looked at: the model and its limits stand before or right after the messages,
    /// and what lies further on stays unread.
    pub const PREFIX: usize = 256 * 1024;

    /// A reader at the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scanner: Scanner::new(),
            left: Self::PREFIX,
            model: ModelName::NONE,
            tier: ServiceTier::Standard,
            max_output: None,
        }
    }

    /// The next bytes of the body; those beyond the first 256 KiB are not looked at.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        self.left -= bytes.len();
        let Self { scanner, model, tier, max_output, .. } = self;
        scanner.push(bytes, Fields::request(), |event| match event {
            Event::Value(Field::Model, Token::Text(Some(name)), _) => *model = ModelName::new(name),
            Event::Value(Field::ServiceTier, Token::Text(Some(word)), _) => {
                *tier = ServiceTier::of_word(word)
            }
            Event::Value(Field::MaxOutput, Token::Number(Some(text)), _) => {
                let most = decimal(text, 0).ok().and_then(|most| u64::try_from(most).ok());
                *max_output = most.filter(|most| *most <= MAX_COUNT).or(*max_output);
            }
            _ => {}
        });
    }

    /// The model that is asked for; empty where the body names none (or not yet).
    #[must_use]
    pub fn model(&self) -> &str {
        self.model.as_str()
    }

    /// The tier that is asked for.
    #[must_use]
    pub fn tier(&self) -> ServiceTier {
        self.tier
    }

    /// The most tokens that the answer may have (`max_tokens` and its like); `None` where that was not said.
    #[must_use]
    pub fn max_output(&self) -> Option<u64> {
        self.max_output
    }
}

/// The model that a URL's path names, as Gemini's (`/v1beta/models/gemini-2.5-pro:generateContent`) and
/// Bedrock's (`/model/amazon.nova-pro-v1:0/converse`) do; for Azure's the deployment, which stands for a model
/// (`/openai/deployments/gpt-4o/chat/completions`).
#[must_use]
pub fn model_in_path(path: &str) -> Option<&str> {
    let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let path = &path[..end];
    let (mut models, mut model, mut deployment) = (None, None, None);
    for (at, _) in path.bytes().enumerate().filter(|(_, byte)| *byte == b'/') {
        let rest = &path[at..];
        models = rest.strip_prefix("/models/").or(models);
        model = rest.strip_prefix("/model/").or(model);
        deployment = deployment.or_else(|| rest.strip_prefix("/openai/deployments/"));
    }
    if let Some(rest) = models {
        let (model, _operation) = rest.split_once(':')?;
        return Some(model).filter(|model| !model.is_empty() && !model.contains('/'));
    }
    let (model, _operation) = model.or(deployment)?.split_once('/')?;
    Some(model).filter(|model| !model.is_empty())
}

/// The body of a request with another model in place of its own, all else unchanged to the byte; `None` where
/// it names no model, or `to` is none (it would need escapes).
#[must_use]
pub fn replace_model(body: &[u8], to: &str) -> Option<Vec<u8>> {
    let plain =
        !to.is_empty() && to.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    let place = find(body, Fields::request(), Field::Model).filter(|_| plain)?;
    let mut changed = Vec::with_capacity(body.len() - place.len() + to.len());
    changed.extend_from_slice(&body[..place.start]);
    changed.extend_from_slice(to.as_bytes());
    changed.extend_from_slice(&body[place.end..]);
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> RequestReader {
        let mut reader = RequestReader::new();
        reader.push(body.as_bytes());
        reader
    }

    #[test]
    fn every_dialect_says_its_model_and_its_limit() {
        for (body, model, most) in [
            (
                r#"{"model":"gpt-4o","messages":[{"role":"user","content":"{\"model\":\"x\"}"}],"max_tokens":100}"#,
                "gpt-4o",
                Some(100),
            ),
            (r#"{"messages":[{"model":"x"}],"max_completion_tokens": 7, "model" : "o3" }"#, "o3", Some(7)),
            (r#"{"model":"gpt-5","input":"hi","max_output_tokens":9}"#, "gpt-5", Some(9)),
            (r#"{"contents":[],"generationConfig":{"maxOutputTokens":12}}"#, "", Some(12)),
            (r#"{"inferenceConfig":{"maxTokens":512}}"#, "", Some(512)),
            (r#"{"model":"meta-llama\/Llama-3","max_tokens":-5}"#, "meta-llama/Llama-3", None),
            (r#"{"model":"a","max_tokens":1e99}"#, "a", None),
            (r#"{"model":7,"max_tokens":"many"}"#, "", None),
            ("model=gpt-4o", "", None),
            ("", "", None),
        ] {
            let reader = read(body);
            assert_eq!((reader.model(), reader.max_output()), (model, most), "{body}");
        }
    }

    #[test]
    fn what_lies_beyond_the_prefix_is_not_looked_at() {
        let mut reader = RequestReader::new();
        reader.push(br#"{"prompt":""#);
        reader.push(&vec![b'a'; RequestReader::PREFIX]);
        reader.push(br#"","model":"late"}"#);
        assert_eq!(reader.model(), "");
    }

    #[test]
    fn a_path_may_name_the_model() {
        assert_eq!(model_in_path("/v1beta/models/gemini-2.5-pro:generateContent"), Some("gemini-2.5-pro"));
        assert_eq!(
            model_in_path(
                "/v1/projects/p/locations/l/publishers/google/models/gemini-3:streamGenerateContent?alt=sse"
            ),
            Some("gemini-3")
        );
        assert_eq!(model_in_path("/model/amazon.nova-pro-v1:0/converse"), Some("amazon.nova-pro-v1:0"));
        for path in ["/v1/models", "/v1/models/gpt-4o", "/v1beta/models/:x", "/model/", "/", ""] {
            assert_eq!(model_in_path(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_models_name_is_replaced() {
        let body = br#"{"messages":[{"content":"\"model\":\"gpt-4o\""}], "model" : "gpt-4o", "n":1}"#;
        let changed = replace_model(body, "gpt-4o-mini").unwrap();
        assert_eq!(
            std::str::from_utf8(&changed).unwrap(),
            r#"{"messages":[{"content":"\"model\":\"gpt-4o\""}], "model" : "gpt-4o-mini", "n":1}"#
        );
        assert_eq!(replace_model(b"{}", "x"), None);
        assert_eq!(replace_model(br#"{"model":7}"#, "x"), None);
        assert_eq!(replace_model(br#"{"model":"a"}"#, "x\"y"), None);
    }

    proptest! {
        #[test]
        fn no_split_and_no_bytes_make_a_difference_or_a_panic(
            bytes in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b':'), Just(b','), Just(b'\\'), any::<u8>()], 0..200),
            at in 0usize..200,
        ) {
            let body = [br#"{"model":"gpt-4o","max_tokens":5,"#.as_slice(), &bytes].concat();
            let whole = { let mut reader = RequestReader::new(); reader.push(&body); reader };
            let (first, second) = body.split_at(at.min(body.len()));
            let mut split = RequestReader::new();
            split.push(first);
            split.push(second);
            prop_assert_eq!(whole.model(), split.model());
            prop_assert_eq!(whole.max_output(), split.max_output());
        }
    }
}
