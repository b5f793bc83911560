//! Stripe: objects that are remembered, form bodies, and idempotency keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::table::hex;
use super::{Ask, digest, form};
use crate::answer::Answer;
use crate::clock;
use crate::counts::lock;

/// Collection, id prefix, object name.
const KINDS: &[(&str, &str, &str)] = &[
    ("customers", "cus", "customer"),
    ("charges", "ch", "charge"),
    ("payment_intents", "pi", "payment_intent"),
    ("refunds", "re", "refund"),
    ("subscriptions", "sub", "subscription"),
    ("products", "prod", "product"),
    ("prices", "price", "price"),
    ("invoices", "in", "invoice"),
];

const MAX_OBJECTS: usize = 10_000;
const MAX_KEYS: usize = 10_000;
/// Stripe's own bound on a key's length.
const MAX_KEY: usize = 255;

/// What this Stripe remembers, bounded: the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Collection and number to object, in order of creation.
    objects: BTreeMap<(&'static str, u64), Value>,
    ids: HashMap<String, (&'static str, u64)>,
    order: VecDeque<String>,
    created: u64,
    answers: HashMap<String, (String, Answer)>,
    keys: VecDeque<String>,
}

impl Store {
    pub(super) fn answer(&self, ask: &Ask<'_>, seq: u64) -> Answer {
        let mut answer = self.once(ask);
        answer.set("request-id", &format!("req_{}", &hex(seq)[..14]));
        answer.set("stripe-version", ask.header("stripe-version").unwrap_or("2025-09-30.clover"));
        answer
    }

    /// The first answer to an idempotency key is the answer to all later requests with that key.
    fn once(&self, ask: &Ask<'_>) -> Answer {
        let memory = &mut *lock(&self.0);
        let key = ask.header("idempotency-key").filter(|_| ask.method == Method::POST);
        let Some(key) = key else { return memory.answer(ask) };
        if key.len() > MAX_KEY {
            return refused(
                StatusCode::BAD_REQUEST,
                "idempotency_error",
                "Idempotency keys have at most 255 characters.",
            );
        }
        // Keys belong to the account: another API key is another account.
        let scope = digest(ask.header("authorization").unwrap_or_default().as_bytes());
        let key = format!("{scope}:{key}");
        let print = digest(&[ask.path.as_bytes(), b"\n", ask.body].concat());
        match memory.answers.get(&key) {
            Some((first, _)) if *first != print => refused(
                StatusCode::BAD_REQUEST,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
            ),
            Some((_, stored)) => {
                let mut answer = stored.clone();
                answer.headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
                answer
            }
            None => {
                let answer = memory.answer(ask);
                // Stripe does not store the answer of a request that failed validation.
                if answer.status.is_success() {
                    memory.remember(key, print, answer.clone());
                }
                answer
            }
        }
    }
}

impl Memory {
    fn remember(&mut self, key: String, print: String, answer: Answer) {
        if self.keys.len() == MAX_KEYS
            && let Some(oldest) = self.keys.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.keys.push_back(key.clone());
        self.answers.insert(key, (print, answer));
    }

    fn answer(&mut self, ask: &Ask<'_>) -> Answer {
        if ask.header("authorization").is_none() {
            return refused(
                StatusCode::UNAUTHORIZED,
                "invalid_request_error",
                "You did not provide an API key.",
            );
        }
        let segments: Vec<_> = ask.path.trim_matches('/').split('/').collect();
        if segments == ["v1", "balance"] && ask.method == Method::GET {
            let funds = json!([{"amount": 12345, "currency": "usd", "source_types": {"card": 12345}}]);
            let balance =
                json!({"object": "balance", "available": funds, "pending": funds, "livemode": false});
            return Answer::json(StatusCode::OK, &balance);
        }
        let kind = segments.get(1).and_then(|s| KINDS.iter().find(|k| k.0 == *s));
        let (Some(&kind), Some(&"v1")) = (kind, segments.first()) else { return unknown(ask) };
        match (ask.method, &segments[2..]) {
            (&Method::POST, []) => self.create(kind, ask),
            (&Method::GET, []) => self.list(kind.0, ask),
            (&Method::GET, [id]) => match self.find(id) {
                Some(object) => Answer::json(StatusCode::OK, object),
                None => missing(kind.2, id),
            },
            (&Method::POST, [id]) => self.update(kind.2, id, &parameters(ask)),
            (&Method::POST, [id, "confirm" | "capture"]) => {
                let done = Map::from_iter([("status".to_owned(), json!("succeeded"))]);
                self.update(kind.2, id, &done)
            }
            (&Method::POST, [id, "cancel"]) => {
                let done = Map::from_iter([("status".to_owned(), json!("canceled"))]);
                self.update(kind.2, id, &done)
            }
            (&Method::DELETE, [id]) => match self.forget(id) {
                true => Answer::json(StatusCode::OK, &json!({"id": id, "object": kind.2, "deleted": true})),
                false => missing(kind.2, id),
            },
            _ => unknown(ask),
        }
    }

    fn create(&mut self, (collection, prefix, object): (&'static str, &str, &str), ask: &Ask<'_>) -> Answer {
        let mut fields = parameters(ask);
        if matches!(object, "charge" | "payment_intent") && !fields.contains_key("amount") {
            return refused(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "Missing required param: amount.",
            );
        }
        self.created += 1;
        let id = format!("{prefix}_{}", &hex(self.created)[..24]);
        for (name, value) in defaults(object, &id) {
            fields.entry(name).or_insert(value);
        }
        let value = Value::Object(fields);
        if self.order.len() == MAX_OBJECTS
            && let Some(oldest) = self.order.pop_front()
            && let Some(at) = self.ids.remove(&oldest)
        {
            self.objects.remove(&at);
        }
        self.order.push_back(id.clone());
        self.ids.insert(id, (collection, self.created));
        let answer = Answer::json(StatusCode::OK, &value);
        self.objects.insert((collection, self.created), value);
        answer
    }

    fn list(&self, collection: &'static str, ask: &Ask<'_>) -> Answer {
        let limit = ask.count("limit", 10).clamp(1, 100);
        // Newest first, after the cursor.
        let after = ask.query("starting_after").and_then(|id| self.ids.get(&*id)).map_or(u64::MAX, |at| at.1);
        let older = self.objects.range((collection, 0)..(collection, after)).rev();
        let mut data: Vec<_> = older.map(|(_, v)| v.clone()).take(limit + 1).collect();
        let has_more = data.len() > limit;
        data.truncate(limit);
        let url = format!("/v1/{collection}");
        let list = json!({"object": "list", "url": url, "has_more": has_more, "data": data});
        Answer::json(StatusCode::OK, &list)
    }

    fn find(&self, id: &str) -> Option<&Value> {
        self.ids.get(id).and_then(|at| self.objects.get(at))
    }

    fn update(&mut self, object: &str, id: &str, changes: &Map<String, Value>) -> Answer {
        let found = self.ids.get(id).and_then(|at| self.objects.get_mut(at));
        let Some(Value::Object(fields)) = found else { return missing(object, id) };
        for (name, value) in changes {
            fields.insert(name.clone(), value.clone());
        }
        Answer::json(StatusCode::OK, &Value::Object(fields.clone()))
    }

    fn forget(&mut self, id: &str) -> bool {
        self.order.retain(|known| known != id);
        self.ids.remove(id).is_some_and(|at| self.objects.remove(&at).is_some())
    }
}

/// The fields that an object has without being asked for them.
fn defaults(object: &str, id: &str) -> Vec<(String, Value)> {
    let common = [
        ("id", json!(id)),
        ("object", json!(object)),
        ("created", json!(clock::now().as_secs())),
        ("livemode", json!(false)),
        ("metadata", json!({})),
    ];
    let own: &[(&str, Value)] = &match object {
        "customer" => vec![
            ("email", Value::Null),
            ("name", Value::Null),
            ("balance", json!(0)),
            ("delinquent", json!(false)),
        ],
        "charge" => vec![
            ("status", json!("succeeded")),
            ("paid", json!(true)),
            ("captured", json!(true)),
            ("refunded", json!(false)),
            ("amount_refunded", json!(0)),
            ("currency", json!("usd")),
        ],
        "payment_intent" => vec![
            ("status", json!("requires_payment_method")),
            ("currency", json!("usd")),
            ("amount_received", json!(0)),
            ("client_secret", json!(format!("{id}_secret_sim"))),
            ("payment_method_types", json!(["card"])),
        ],
        "refund" => vec![("status", json!("succeeded")), ("currency", json!("usd")), ("reason", Value::Null)],
        "subscription" | "product" | "price" => vec![("active", json!(true)), ("status", json!("active"))],
        _ => vec![("status", json!("draft"))],
    };
    common.iter().chain(own).map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
}

/// Form parameters as JSON: `metadata[k]=v` nests, `a[]=1` and `a[0]=1` make lists, amounts are numbers.
fn parameters(ask: &Ask<'_>) -> Map<String, Value> {
    let body = String::from_utf8_lossy(ask.body);
    let mut fields = Map::new();
    for (name, value) in form(&body).take(1_000) {
        let (top, inner) = name.split_once('[').unwrap_or((&name, ""));
        let inner = inner.split(']').next().unwrap_or_default();
        let whole = !name.contains('[');
        let value = match value.parse::<i64>() {
            Ok(number) if top.contains("amount") || top == "quantity" => json!(number),
            _ => json!(value),
        };
        if whole {
            fields.insert(top.to_owned(), value);
        } else if inner.is_empty() || inner.bytes().all(|b| b.is_ascii_digit()) {
            let list = fields.entry(top).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(value);
            }
        } else if let Value::Object(map) = fields.entry(top).or_insert_with(|| json!({})) {
            map.insert(inner.to_owned(), value);
        }
    }
    fields
}

fn refused(status: StatusCode, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"type": kind, "message": message}}))
}

fn missing(object: &str, id: &str) -> Answer {
    let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing",
        "param": "id", "message": format!("No such {object}: '{id}'")}});
    Answer::json(StatusCode::NOT_FOUND, &error)
}

fn unknown(ask: &Ask<'_>) -> Answer {
    let message = format!("Unrecognized request URL ({}: {}).", ask.method, ask.path);
    refused(StatusCode::NOT_FOUND, "invalid_request_error", &message)
}
