//! What a call used, with every vendor's way of counting made one.

use super::Unknown;
use super::fields::{SLOTS, Slot};

/// A kind of thing that is counted and priced. The kinds are disjoint: no token is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Text tokens of the prompt that no cache served.
    Input,
    /// Tokens of the prompt read from the vendor's cache.
    CachedInput,
    /// Tokens written to the vendor's cache.
    CacheWrite,
    /// Tokens written to the vendor's cache to stay for an hour.
    CacheWriteLong,
    /// Audio tokens of the prompt.
    AudioInput,
    /// Audio tokens of the prompt read from the vendor's cache.
    CachedAudio,
    /// Image tokens of the prompt.
    ImageInput,
    /// Text tokens of the answer.
    Output,
    /// Tokens spent on thinking.
    Reasoning,
    /// Audio tokens of the answer.
    AudioOutput,
    /// Image tokens of the answer.
    ImageOutput,
    /// Searches that the model made.
    Search,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Input,
        Self::CachedInput,
        Self::CacheWrite,
        Self::CacheWriteLong,
        Self::AudioInput,
        Self::CachedAudio,
        Self::ImageInput,
        Self::Output,
        Self::Reasoning,
        Self::AudioOutput,
        Self::ImageOutput,
        Self::Search,
    ];

    /// The key of a price that says what it costs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::CacheWrite => "cache_write",
            Self::CacheWriteLong => "cache_write_1h",
            Self::AudioInput => "audio_input",
            Self::CachedAudio => "cached_audio",
            Self::ImageInput => "image_input",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioOutput => "audio_output",
            Self::ImageOutput => "image_output",
            Self::Search => "search",
        }
    }

    /// The kind whose price holds where this one has none.
    pub(super) const fn stands_for(self) -> Option<Self> {
        match self {
            Self::Input | Self::Output | Self::Search => None,
            Self::CachedAudio => Some(Self::CachedInput),
            Self::CacheWriteLong => Some(Self::CacheWrite),
            Self::CachedInput | Self::CacheWrite | Self::AudioInput | Self::ImageInput => Some(Self::Input),
            Self::Reasoning | Self::AudioOutput | Self::ImageOutput => Some(Self::Output),
        }
    }

    /// Whether it is part of the prompt.
    pub(super) const fn of_prompt(self) -> bool {
        (self as u8) < Self::Output as u8
    }
}

/// Which of a vendor's qualities of service served the call; each may have a price of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceTier {
    /// The usual one, or the vendor did not say.
    #[default]
    Standard,
    /// Cheaper and slower.
    Flex,
    /// Dearer and faster.
    Priority,
    /// Dearer and faster still: Anthropic's `speed`.
    Fast,
    /// In a batch.
    Batch,
    /// One that is not known here, and so has no price.
    Other,
}

impl ServiceTier {
    /// The words for those that a price can be stated for.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("standard", Self::Standard),
        ("flex", Self::Flex),
        ("priority", Self::Priority),
        ("fast", Self::Fast),
        ("batch", Self::Batch),
    ];

    /// The tier of a vendor's own word.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        match word {
            "default" | "auto" | "standard" | "standard_only" | "on_demand" | "normal" | "" => Self::Standard,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "fast" => Self::Fast,
            "batch" => Self::Batch,
            _ => Self::Other,
        }
    }
}

/// A model's name, cut off nowhere: a longer one is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ModelName {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl ModelName {
    /// The longest name, in bytes.
    pub const MAX: usize = 100;

    /// No name.
    pub const NONE: Self = Self { bytes: [0; Self::MAX], length: 0 };

    /// A name; [`NONE`](Self::NONE) where it is too long.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut model = Self::NONE;
        if let (Some(place), Ok(length)) = (model.bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            place.copy_from_slice(name.as_bytes());
            model.length = length;
        }
        model
    }

    /// Makes it no name. One that is none is not written.
    pub(crate) fn forget(&mut self) {
        if self.length != 0 {
            *self = Self::NONE;
        }
    }

    /// The name; empty where there is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or("")
    }
}

impl std::fmt::Debug for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Numbers of a price's own that a call can carry.
pub const MAX_UNITS: usize = 4;

/// What a call used, as far as the vendor stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    counts: [u64; Kind::ALL.len()],
    units: [u64; MAX_UNITS],
    /// The model that answered.
    pub model: ModelName,
    /// The tier that served the call.
    pub tier: ServiceTier,
    /// Why it is not all known; `None` where what is stated is final. Even then a kind may be unstated.
    pub unknown: Option<Unknown>,
    /// Statements that were left out because they made no sense.
    pub refused: u32,
}

const UNSTATED: u64 = u64::MAX;

impl Usage {
    /// Nothing stated, for this reason.
    #[must_use]
    pub const fn unknown(why: Unknown) -> Self {
        Self {
            counts: [UNSTATED; Kind::ALL.len()],
            units: [UNSTATED; MAX_UNITS],
            model: ModelName::NONE,
            tier: ServiceTier::Standard,
            unknown: Some(why),
            refused: 0,
        }
    }

    /// How many of a kind; `None` where that was not stated.
    #[must_use]
    pub fn get(&self, kind: Kind) -> Option<u64> {
        Some(self.counts[kind as usize]).filter(|count| *count != UNSTATED)
    }

    /// States how many of a kind, as a program does that knows them from elsewhere.
    #[must_use]
    pub fn with(mut self, kind: Kind, count: u64) -> Self {
        self.counts[kind as usize] = count.min(MAX_COUNT);
        self.unknown = None;
        self
    }

    /// All tokens of prompt and answer, and of what is known of them if not all is.
    #[must_use]
    pub fn tokens(&self) -> Option<u64> {
        let tokens = Kind::ALL.iter().filter(|kind| **kind != Kind::Search);
        tokens.filter_map(|kind| self.get(*kind)).reduce(u64::saturating_add)
    }

    /// The tokens of the prompt, cached ones included.
    #[must_use]
    pub fn prompt_tokens(&self) -> Option<u64> {
        let prompt = Kind::ALL.iter().filter(|kind| kind.of_prompt());
        prompt.filter_map(|kind| self.get(*kind)).reduce(u64::saturating_add)
    }

    /// A number of the price's own, in billionths.
    #[must_use]
    pub fn unit(&self, number: usize) -> Option<u64> {
        self.units.get(number).copied().filter(|count| *count != UNSTATED)
    }
}

/// More than this of anything in one call is not believed.
pub(super) const MAX_COUNT: u64 = 1_000_000_000_000;

/// What was stated so far, in the vendor's own way of counting.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    slots: [u64; SLOTS],
    pub(super) units: [u64; MAX_UNITS],
    pub(super) model: ModelName,
    pub(super) tier: ServiceTier,
    /// The mark that the answer ended was seen.
    pub(super) ended: bool,
    /// A count was stated after that mark.
    sealed: bool,
    pub(super) refused: u32,
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            slots: [UNSTATED; SLOTS],
            units: [UNSTATED; MAX_UNITS],
            model: ModelName::NONE,
            tier: ServiceTier::Standard,
            ended: false,
            sealed: false,
            refused: 0,
        }
    }

    /// A statement replaces the earlier one: what vendors repeat in a stream is a running total.
    pub(super) fn state(&mut self, slot: Slot, count: u64) {
        self.slots[slot as usize] = count;
        if self.ended && matches!(slot, Slot::Output | Slot::Thoughts | Slot::Total) {
            self.sealed = true;
        }
    }

    pub(super) fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    fn get(&self, slot: Slot) -> Option<u64> {
        Some(self.slots[slot as usize]).filter(|count| *count != UNSTATED)
    }

    fn or_zero(&self, slot: Slot) -> u64 {
        self.get(slot).unwrap_or(0)
    }

    /// The account of a body of which all has been seen (`whole`), or which was let go of.
    /// `lost`: how often the reader could not follow.
    pub(super) fn account(&self, whole: bool, off: Option<Unknown>, lost: u32) -> Usage {
        let mut usage = Usage::unknown(off.unwrap_or(Unknown::NotStated));
        usage.units = self.units;
        usage.model = self.model;
        usage.tier = self.tier;
        usage.refused = self.refused.saturating_add(lost);
        let stated = self.slots.iter().any(|slot| *slot != UNSTATED);
        usage.unknown = match off {
            Some(why) => Some(why),
            None if !stated && usage.refused > 0 => Some(Unknown::Malformed),
            None if !stated && whole => Some(Unknown::NotStated),
            None if !(whole || self.sealed) => Some(Unknown::Abandoned),
            None => None,
        };
        let consistent = self.prompt(&mut usage) & self.answer(&mut usage);
        if !consistent {
            usage.unknown = Some(Unknown::Contradictory);
        } else if self.refused > 0 && usage.unknown.is_none() {
            usage.unknown = Some(Unknown::Malformed);
        }
        if let Some(searches) = self.get(Slot::Searches) {
            usage.counts[Kind::Search as usize] = searches;
        }
        usage
    }

    /// The prompt's kinds; `false` where its parts are more than the whole, and nothing is taken from it.
    fn prompt(&self, usage: &mut Usage) -> bool {
        // An embedding states no more than the total.
        let alone = self.get(Slot::Total).filter(|_| self.get(Slot::Output).is_none());
        let Some(stated) = self.get(Slot::Input).or(alone) else { return true };
        let cached_audio = self.or_zero(Slot::CachedAudio);
        let parts = [
            (Kind::CachedInput, self.or_zero(Slot::Cached).checked_sub(cached_audio)),
            (Kind::CachedAudio, Some(cached_audio)),
            (Kind::AudioInput, self.or_zero(Slot::AudioInput).checked_sub(cached_audio)),
            (Kind::CacheWrite, Some(self.or_zero(Slot::CacheWrite))),
            (Kind::ImageInput, Some(self.or_zero(Slot::ImageInput))),
        ];
        let whole = stated.saturating_add(self.or_zero(Slot::ToolInput));
        let rest = parts.iter().try_fold(whole, |rest, (_, part)| rest.checked_sub((*part)?));
        let written = self.or_zero(Slot::CacheCreate);
        let long = self.or_zero(Slot::CreateLong);
        let (Some(rest), Some(short)) = (rest, written.checked_sub(long)) else { return false };
        usage.counts[Kind::Input as usize] = rest;
        for (kind, part) in parts {
            usage.counts[kind as usize] = part.unwrap_or(0);
        }
        usage.counts[Kind::CachedInput as usize] += self.or_zero(Slot::CacheRead);
        usage.counts[Kind::CacheWrite as usize] += short;
        usage.counts[Kind::CacheWriteLong as usize] = long;
        true
    }

    /// The answer's kinds; `false` where its parts are more than the whole, and nothing is taken from it.
    fn answer(&self, usage: &mut Usage) -> bool {
        let thoughts = self.get(Slot::Thoughts);
        let Some(stated) = self.get(Slot::Output).or(thoughts.map(|_| 0)) else { return true };
        let inside = self.or_zero(Slot::Reasoning);
        let reasoning = self.get(Slot::ReasoningBeside).unwrap_or(inside);
        let input = self.or_zero(Slot::Input);
        // Some count thinking beside the answer (xAI); the total tells.
        let beside = match self.get(Slot::Total) {
            Some(total) if total == input.saturating_add(stated) => false,
            Some(total) if total == input.saturating_add(stated).saturating_add(reasoning) => true,
            _ => self.get(Slot::ReasoningBeside).is_some(),
        };
        let parts = [self.or_zero(Slot::AudioOutput), self.or_zero(Slot::ImageOutput)];
        let within = if beside { 0 } else { reasoning };
        let rest = parts.iter().try_fold(stated, |rest, part| rest.checked_sub(*part));
        let Some(rest) = rest.and_then(|rest| rest.checked_sub(within)) else { return false };
        usage.counts[Kind::Output as usize] = rest;
        usage.counts[Kind::Reasoning as usize] = reasoning + thoughts.unwrap_or(0);
        usage.counts[Kind::AudioOutput as usize] = parts[0];
        usage.counts[Kind::ImageOutput as usize] = parts[1];
        true
    }
}
