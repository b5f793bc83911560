//! Where vendors state what a call used: paths into their JSON, as data.
//!
//! One table serves all dialects, so that the endpoint of one vendor that speaks another's dialect (nearly
//! everybody has one like OpenAI's) is read without being told. They do not contradict each other: equal names
//! mean equal things, or a detail beside them says which.

use std::sync::{Arc, LazyLock};

/// What is found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A number of tokens or of other units, by its [`Slot`].
    Count(Slot),
    /// The model's name.
    Model,
    /// The service tier, or the speed, that the call was served with.
    ServiceTier,
    Speed,
    /// Why the answer ended: what is stated after it is final.
    Finished,
    /// The kind of an event; some kinds are the last.
    Type,
    /// The list of modalities that belongs to a slot of the text, `[{"modality": "AUDIO", "tokenCount": 7}]`.
    Modalities(Side),
    Modality,
    ModalityCount,
    /// What the request allows for the answer.
    MaxOutput,
    /// A number that a price asks for.
    Unit(u8),
}

/// Which count a list of modalities divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Prompt,
    Cache,
    Answer,
}

/// What vendors count, before their ways of counting are made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slot {
    Input,
    /// What tools put into the prompt; beside `Input`.
    ToolInput,
    /// Input read from a cache; within `Input`.
    Cached,
    /// The same, beside `Input`.
    CacheRead,
    /// Input written to a cache; beside `Input`.
    CacheCreate,
    /// The same, within `Input`.
    CacheWrite,
    /// Of what was written to a cache, what is kept for an hour.
    CreateLong,
    AudioInput,
    CachedAudio,
    ImageInput,
    Output,
    /// Tokens spent on thinking; within `Output` unless the total says otherwise.
    Reasoning,
    /// The same, beside `Output` unless the total says otherwise.
    ReasoningBeside,
    /// The same, beside `Output`.
    Thoughts,
    AudioOutput,
    ImageOutput,
    Total,
    Searches,
}

/// How many slots there are.
pub(super) const SLOTS: usize = Slot::Searches as usize + 1;

/// Below which key a usage object lies: alone (OpenAI, Anthropic's delta), in Anthropic's `message_start`, in
/// the events of OpenAI's Responses, in Groq's and Cohere's last chunk.
const USAGE: &[&str] = &["usage", "message.usage", "response.usage", "x_groq.usage", "delta.usage"];

/// What lies within a usage object.
const COUNTS: &[(&str, Slot)] = &[
    // OpenAI's chat completions and embeddings, and all who are compatible with them.
    ("prompt_tokens", Slot::Input),
    ("completion_tokens", Slot::Output),
    ("total_tokens", Slot::Total),
    ("prompt_tokens_details.cached_tokens", Slot::Cached),
    ("prompt_tokens_details.cache_write_tokens", Slot::CacheWrite),
    ("prompt_tokens_details.audio_tokens", Slot::AudioInput),
    ("completion_tokens_details.reasoning_tokens", Slot::Reasoning),
    ("completion_tokens_details.audio_tokens", Slot::AudioOutput),
    ("cached_tokens", Slot::Cached),
    // DeepSeek; Perplexity.
    ("prompt_cache_hit_tokens", Slot::Cached),
    ("reasoning_tokens", Slot::ReasoningBeside),
    ("num_search_queries", Slot::Searches),
    // OpenAI's Responses and images.
    ("input_tokens", Slot::Input),
    ("output_tokens", Slot::Output),
    ("input_tokens_details.cached_tokens", Slot::Cached),
    ("input_tokens_details.cache_write_tokens", Slot::CacheWrite),
    ("input_tokens_details.image_tokens", Slot::ImageInput),
    ("output_tokens_details.reasoning_tokens", Slot::Reasoning),
    ("output_tokens_details.image_tokens", Slot::ImageOutput),
    // Anthropic's messages: caches count beside the input.
    ("cache_read_input_tokens", Slot::CacheRead),
    ("cache_creation_input_tokens", Slot::CacheCreate),
    ("cache_creation.ephemeral_1h_input_tokens", Slot::CreateLong),
    ("output_tokens_details.thinking_tokens", Slot::Reasoning),
    ("server_tool_use.web_search_requests", Slot::Searches),
    // Cohere bills these, which differ from what the model saw.
    ("billed_units.input_tokens", Slot::Input),
    ("billed_units.output_tokens", Slot::Output),
    // Bedrock's Converse.
    ("inputTokens", Slot::Input),
    ("outputTokens", Slot::Output),
    ("totalTokens", Slot::Total),
    ("cacheReadInputTokens", Slot::CacheRead),
    ("cacheWriteInputTokens", Slot::CacheCreate),
];

/// Gemini's `usageMetadata`, and where else the rest lies.
const OTHERS: &[(&str, Field)] = &[
    ("usageMetadata.promptTokenCount", Field::Count(Slot::Input)),
    ("usageMetadata.toolUsePromptTokenCount", Field::Count(Slot::ToolInput)),
    ("usageMetadata.cachedContentTokenCount", Field::Count(Slot::Cached)),
    ("usageMetadata.candidatesTokenCount", Field::Count(Slot::Output)),
    ("usageMetadata.thoughtsTokenCount", Field::Count(Slot::Thoughts)),
    ("usageMetadata.totalTokenCount", Field::Count(Slot::Total)),
    ("usageMetadata.promptTokensDetails", Field::Modalities(Side::Prompt)),
    ("usageMetadata.promptTokensDetails.modality", Field::Modality),
    ("usageMetadata.promptTokensDetails.tokenCount", Field::ModalityCount),
    ("usageMetadata.cacheTokensDetails", Field::Modalities(Side::Cache)),
    ("usageMetadata.cacheTokensDetails.modality", Field::Modality),
    ("usageMetadata.cacheTokensDetails.tokenCount", Field::ModalityCount),
    ("usageMetadata.candidatesTokensDetails", Field::Modalities(Side::Answer)),
    ("usageMetadata.candidatesTokensDetails.modality", Field::Modality),
    ("usageMetadata.candidatesTokensDetails.tokenCount", Field::ModalityCount),
    ("meta.billed_units.input_tokens", Field::Count(Slot::Input)),
    ("meta.billed_units.output_tokens", Field::Count(Slot::Output)),
    ("model", Field::Model),
    ("message.model", Field::Model),
    ("response.model", Field::Model),
    ("modelVersion", Field::Model),
    ("service_tier", Field::ServiceTier),
    ("response.service_tier", Field::ServiceTier),
    ("usage.service_tier", Field::ServiceTier),
    ("message.usage.service_tier", Field::ServiceTier),
    ("usage.speed", Field::Speed),
    ("message.usage.speed", Field::Speed),
    ("choices.finish_reason", Field::Finished),
    ("candidates.finishReason", Field::Finished),
    ("promptFeedback.blockReason", Field::Finished),
    ("delta.stop_reason", Field::Finished),
    ("delta.finish_reason", Field::Finished),
    ("stop_reason", Field::Finished),
    ("type", Field::Type),
];

/// What a request says of its own cost.
const REQUEST: &[(&str, Field)] = &[
    ("model", Field::Model),
    ("modelId", Field::Model),
    ("service_tier", Field::ServiceTier),
    ("max_tokens", Field::MaxOutput),
    ("max_completion_tokens", Field::MaxOutput),
    ("max_output_tokens", Field::MaxOutput),
    ("max_tokens_to_sample", Field::MaxOutput),
    ("generationConfig.maxOutputTokens", Field::MaxOutput),
    ("generation_config.max_output_tokens", Field::MaxOutput),
    ("inferenceConfig.maxTokens", Field::MaxOutput),
];

/// Paths as a tree, so that a scanner follows them key by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    children: Vec<(Box<[u8]>, u16)>,
    field: Option<Field>,
}

/// Keys that a path may have.
pub(super) const MAX_DEPTH: usize = 8;

static RESPONSE: LazyLock<Arc<Fields>> = LazyLock::new(|| Arc::new(Fields::of_response()));
static OF_REQUEST: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = Fields { nodes: vec![Node::default()] };
    for (path, field) in REQUEST {
        fields.insert(path, *field);
    }
    fields
});

impl Fields {
    pub(super) const ROOT: u16 = 0;

    /// What responses state.
    pub(super) fn response() -> &'static Arc<Self> {
        &RESPONSE
    }

    /// What requests state.
    pub(super) fn request() -> &'static Self {
        &OF_REQUEST
    }

    fn of_response() -> Self {
        let mut fields = Self { nodes: vec![Node::default()] };
        for usage in USAGE {
            for (path, slot) in COUNTS {
                fields.insert(&format!("{usage}.{path}"), Field::Count(*slot));
            }
        }
        for (path, field) in OTHERS {
            fields.insert(path, *field);
        }
        fields
    }

    /// What responses state, and the numbers of a price's own beside it. A path that both know is read for
    /// the price; one below `usage` wherever a usage object may lie.
    pub(super) fn with_units<'a>(paths: impl Iterator<Item = (u8, &'a str)>) -> Arc<Self> {
        let mut fields = Self::of_response();
        for (number, path) in paths {
            match path.strip_prefix("usage.") {
                // Wherever a usage object may lie, streamed ones included.
                Some(rest) => {
                    USAGE
                        .iter()
                        .for_each(|usage| fields.insert(&format!("{usage}.{rest}"), Field::Unit(number)));
                }
                None => fields.insert(path, Field::Unit(number)),
            }
        }
        Arc::new(fields)
    }

    fn insert(&mut self, path: &str, field: Field) {
        let mut at = usize::from(Self::ROOT);
        for key in path.split('.') {
            let fresh = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX);
            let next = match self.nodes[at].children.iter().find(|(known, _)| **known == *key.as_bytes()) {
                Some((_, next)) => *next,
                None => {
                    self.nodes[at].children.push((key.as_bytes().into(), fresh));
                    self.nodes.push(Node::default());
                    fresh
                }
            };
            at = usize::from(next);
        }
        self.nodes[at].field = Some(field);
    }

    pub(super) fn child(&self, node: u16, key: &[u8]) -> Option<u16> {
        let children = &self.nodes[usize::from(node)].children;
        children.iter().find(|(known, _)| **known == *key).map(|(_, child)| *child)
    }

    pub(super) fn has_children(&self, node: u16) -> bool {
        !self.nodes[usize::from(node)].children.is_empty()
    }

    pub(super) fn field(&self, node: u16) -> Option<Field> {
        self.nodes[usize::from(node)].field
    }
}
