//! Attempts that an SDK above makes of one call, recognised by what it writes into its requests.
//!
//! Read in the SDKs themselves: openai 3.52 and anthropic 2.11 (Python), openai 6.49 and @anthropic-ai/sdk 1.11
//! (Node), stripe 16.1 (Python) and 23.1 (Node), botocore 1.44, @smithy/core 3.41, google-cloud-storage 3.17
//! (Python), azure-core, got 14.6; gRPC by its retry design (gRFC A6). Those of OpenAI,
//! Anthropic and Stripe, botocore and got were also watched as they retried against a server that answers 503.

mod earlier;

pub use earlier::{EarlierAttempts, followed_until};

use crate::units::{same, stable_hash};

/// The header fields that tell SDKs apart; the adapter hands over no others for this.
pub const HEADERS: [&str; 9] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "x-stainless-retry-count",
    "x-stripe-client-user-agent",
    "idempotency-key",
    "x-goog-api-client",
    "grpc-previous-rpc-attempts",
    "x-ms-client-request-id",
    "user-agent",
];

const INVOCATION: usize = 0;
const REQUEST: usize = 1;
const RETRY_COUNT: usize = 2;
const STRIPE_CLIENT: usize = 3;
const KEY: usize = 4;
const GOOG_CLIENT: usize = 5;
const GRPC_ATTEMPTS: usize = 6;
const MS_REQUEST: usize = 7;
const USER_AGENT: usize = 8;

/// The values of [`HEADERS`], in their order.
pub(crate) type Values<'h> = [Option<&'h [u8]>; HEADERS.len()];

/// One attempt of an SDK's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SdkAttempt {
    /// Which SDK, or which family of them.
    pub sdk: &'static str,
    /// A number that all attempts of one call share, where the SDK sends something of that kind.
    pub group: Option<u64>,
    /// Which attempt this is, from 1, where the SDK says so.
    pub number: Option<u32>,
    /// Whether the SDK may try again after this attempt. False only where it says that this is the last.
    pub retries: bool,
}

/// How an SDK marks its attempts.
struct Dialect {
    sdk: &'static str,
    /// What a request of this SDK has.
    sign: Field,
    group: Option<Field>,
    /// The attempt's number, and what to add so that the first is 1.
    number: Option<(Field, u32)>,
    /// How many attempts there will be.
    most: Option<Field>,
}

/// A header field, by its place in [`HEADERS`], and which part of its value.
struct Field(usize, Part);

#[derive(Clone, Copy)]
enum Part {
    /// All of it.
    Whole,
    /// The value, if it begins so.
    Beginning(&'static str),
    /// What follows this in one of its words, as in `gccl-invocation-id/...`.
    Word(&'static str),
    /// A parameter, as in `attempt=2; max=3`.
    Parameter(&'static str),
}

/// How user agents begin that stand for an SDK.
const AGENTS: [&str; 2] = ["azsdk-", "got ("];

static DIALECTS: [Dialect; 7] = [
    Dialect {
        sdk: "aws",
        sign: Field(INVOCATION, Part::Whole),
        group: Some(Field(INVOCATION, Part::Whole)),
        number: Some((Field(REQUEST, Part::Parameter("attempt")), 0)),
        most: Some(Field(REQUEST, Part::Parameter("max"))),
    },
    // openai, anthropic, and every other SDK that Stainless generates. None sends a key of its own accord.
    Dialect {
        sdk: "stainless",
        sign: Field(RETRY_COUNT, Part::Whole),
        group: Some(Field(KEY, Part::Whole)),
        number: Some((Field(RETRY_COUNT, Part::Whole), 1)),
        most: None,
    },
    // The key is made once a call and sent with each attempt; GETs have none.
    Dialect {
        sdk: "stripe",
        sign: Field(STRIPE_CLIENT, Part::Whole),
        group: Some(Field(KEY, Part::Whole)),
        number: None,
        most: None,
    },
    Dialect {
        sdk: "google-cloud",
        sign: Field(GOOG_CLIENT, Part::Word("gccl-invocation-id/")),
        group: Some(Field(GOOG_CLIENT, Part::Word("gccl-invocation-id/"))),
        number: None,
        most: None,
    },
    // Absent on the first attempt.
    Dialect {
        sdk: "grpc",
        sign: Field(GRPC_ATTEMPTS, Part::Whole),
        group: None,
        number: Some((Field(GRPC_ATTEMPTS, Part::Whole), 1)),
        most: None,
    },
    Dialect {
        sdk: "azure",
        sign: Field(USER_AGENT, Part::Beginning(AGENTS[0])),
        group: Some(Field(MS_REQUEST, Part::Whole)),
        number: None,
        most: None,
    },
    Dialect {
        sdk: "got",
        sign: Field(USER_AGENT, Part::Beginning(AGENTS[1])),
        group: None,
        number: None,
        most: None,
    },
];

impl Field {
    fn read<'h>(&self, values: &Values<'h>) -> Option<&'h str> {
        let value = values[self.0]?;
        if let Part::Beginning(beginning) = self.1
            && !begins(value.trim_ascii_start(), beginning)
        {
            // Each request has a user agent: not to be read as text before it looks like one of these.
            return None;
        }
        let value = text(value.trim_ascii())?;
        let part = match self.1 {
            Part::Whole | Part::Beginning(_) => value,
            Part::Word(beginning) => {
                value.split_ascii_whitespace().find_map(|word| word.strip_prefix(beginning))?
            }
            Part::Parameter(name) => value.split(';').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (key.trim() == name).then_some(value.trim())
            })?,
        };
        (!part.is_empty()).then_some(part)
    }
}

fn begins(text: &[u8], beginning: &str) -> bool {
    let beginning = beginning.as_bytes();
    text.first() == beginning.first()
        && text.get(..beginning.len()).is_some_and(|start| same(start, beginning))
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Recognises the SDK that made a request from its header fields; `header` gives the value of a field of
/// [`HEADERS`] by its name in lower case. `None` for a request of no SDK that is known to retry.
#[must_use]
pub fn recognise<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<SdkAttempt> {
    recognise_by(&HEADERS.map(|name| header(name).map(str::as_bytes)))
}

/// Whether a user agent begins as that of an SDK.
#[inline]
pub(crate) fn may_be_sdk(agent: &[u8]) -> bool {
    let agent = agent.trim_ascii_start();
    AGENTS.iter().any(|agents| begins(agent, agents))
}

/// The same from the values of all [`HEADERS`].
pub(crate) fn recognise_by(values: &Values<'_>) -> Option<SdkAttempt> {
    // Most requests have no field of these but the user agent, and that says at its first letter that it is none.
    let (fields, agent) = (&values[..USER_AGENT], values[USER_AGENT]);
    if !agent.is_some_and(may_be_sdk) && fields.iter().all(Option::is_none) {
        return None;
    }
    let signs = |dialect: &&Dialect| values[dialect.sign.0].is_some() && dialect.sign.read(values).is_some();
    let dialect = DIALECTS.iter().find(signs)?;
    let number = |field: &Field| field.read(values).and_then(|text| text.parse::<u32>().ok());
    let attempt = dialect
        .number
        .as_ref()
        .and_then(|(field, first)| number(field)?.checked_add(*first))
        .filter(|attempt| *attempt > 0);
    let most = dialect.most.as_ref().and_then(number);
    Some(SdkAttempt {
        sdk: dialect.sdk,
        group: dialect.group.as_ref().and_then(|field| Some(stable_hash(0, field.read(values)?.as_bytes()))),
        number: attempt,
        retries: attempt.zip(most).is_none_or(|(attempt, most)| attempt < most),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of<'h>(headers: &'h [(&'static str, &'h str)]) -> Option<SdkAttempt> {
        recognise(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn openai_and_anthropic_count_their_retries() {
        let first = of(&[("x-stainless-retry-count", "0"), ("user-agent", "OpenAI/Python 3.52.0")]).unwrap();
        assert_eq!(first, SdkAttempt { sdk: "stainless", group: None, number: Some(1), retries: true });
        let third = of(&[("x-stainless-retry-count", "2")]).unwrap();
        assert_eq!(third.number, Some(3));
    }

    #[test]
    fn stripe_sends_one_key_with_all_attempts() {
        let headers = [("x-stripe-client-user-agent", "{}"), ("idempotency-key", "stripe-node-retry-1234")];
        let (first, second) = (of(&headers).unwrap(), of(&headers).unwrap());
        assert_eq!(first, second);
        assert!(first.group.is_some() && first.retries);
        let other = of(&[headers[0], ("idempotency-key", "stripe-node-retry-1235")]).unwrap();
        assert_ne!(first.group, other.group);
        assert_eq!(of(&headers[..1]).unwrap().group, None, "a GET has no key");
    }

    #[test]
    fn aws_says_which_attempt_and_how_many() {
        let id = ("amz-sdk-invocation-id", "2f1c8f3e-6f0e-4b8e-9d57-0a3f6a2f9f11");
        let second = of(&[id, ("amz-sdk-request", "ttl=20261121T090000Z; attempt=2; max=3")]).unwrap();
        assert_eq!((second.sdk, second.number, second.retries), ("aws", Some(2), true));
        let last = of(&[id, ("amz-sdk-request", "attempt=3; max=3")]).unwrap();
        assert!(!last.retries);
        assert_eq!(last.group, second.group);
        // botocore's legacy mode leaves out the maximum of the first attempt.
        assert!(of(&[id, ("amz-sdk-request", "attempt=1")]).unwrap().retries);
    }

    #[test]
    fn google_azure_grpc_and_got_are_known() {
        let google = "gl-python/3.13 gccl/3.17.1 gccl-invocation-id/7c3a";
        assert!(of(&[("x-goog-api-client", google)]).unwrap().group.is_some());
        assert_eq!(of(&[("x-goog-api-client", "google-genai-sdk/3.4.0 gl-python/3.13")]), None);
        let azure = [("user-agent", "azsdk-python-storage-blob/12.1"), ("x-ms-client-request-id", "a1")];
        assert!(of(&azure).unwrap().group.is_some());
        assert_eq!(of(&[("grpc-previous-rpc-attempts", "2")]).unwrap().number, Some(3));
        let got = of(&[("user-agent", "got (https://github.com/sindresorhus/got)")]).unwrap();
        assert_eq!((got.sdk, got.retries), ("got", true));
    }

    #[test]
    fn values_that_are_no_text_make_no_sdk() {
        let mut values = [None; HEADERS.len()];
        values[INVOCATION] = Some([0xFF].as_slice());
        assert_eq!(recognise_by(&values), None);
        values[USER_AGENT] = Some(b"got (\xFF".as_slice());
        assert_eq!(recognise_by(&values), None);
    }

    #[test]
    fn an_application_of_its_own_is_no_sdk() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("user-agent", "python-httpx/0.28"), ("idempotency-key", "1")]), None);
        assert_eq!(of(&[("amz-sdk-invocation-id", "")]), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(name in prop::sample::select(HEADERS.to_vec()), value in "\\PC{0,60}") {
            let id = ("amz-sdk-invocation-id", "x");
            let _ = of(&[(name, &value)]);
            let _ = of(&[id, (name, &value)]);
        }
    }
}
