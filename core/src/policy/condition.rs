//! `when`: a condition in CEL (the Common Expression Language), for what a match cannot say.
//!
//! The expression sees the call and nothing else: no clock, no I/O, no regular expressions. Its cost is bounded
//! by its length: at most 1,024 bytes, 32 operators in each other, and no loop within a loop.

use crate::matcher::{Fields, Subject};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The longest condition in bytes.
#[cfg(feature = "cel")]
const MAX_LENGTH: usize = 1_024;

/// A condition in CEL, compiled.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    fields: Fields,
    #[cfg(feature = "cel")]
    program: Arc<cel::Program>,
}

/// Why a text is not a condition; the place is within the text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {message}")]
#[non_exhaustive]
pub struct BadCondition {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// The condition cannot be told for this call.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Untold(String);

/// The names that a condition may use, and what each looks at.
#[cfg(feature = "cel")]
const NAMES: [(&str, Fields); 13] = [
    ("vendor", Fields::VENDOR),
    ("vendor_tags", Fields::VENDOR_TAG),
    ("endpoint", Fields::ENDPOINT),
    ("method", Fields::METHOD),
    ("host", Fields::HOST),
    ("customer", Fields::CUSTOMER),
    ("tags", Fields::TAG),
    ("caller", Fields::CALLER),
    ("credential", Fields::CREDENTIAL),
    ("credential_origin", Fields::ORIGIN),
    ("country", Fields::COUNTRY),
    ("data", Fields::DATA),
    ("bytes", Fields::BYTES),
];

impl Condition {
    /// The text, as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it looks at.
    #[must_use]
    pub fn depends(&self) -> Fields {
        self.fields
    }
}

#[cfg(not(feature = "cel"))]
impl Condition {
    /// # Errors
    /// Always: this build has no CEL.
    pub fn compile(_source: &str) -> Result<Self, BadCondition> {
        let message = "conditions need the feature `cel`, which this build was made without".into();
        Err(BadCondition { line: 1, column: 1, message })
    }

    /// # Errors
    /// Always: this build has no CEL.
    pub fn holds(&self, _subject: &Subject<'_>) -> Result<bool, Untold> {
        Err(Untold("this build has no CEL".into()))
    }
}

#[cfg(feature = "cel")]
mod with_cel {
    use super::{Arc, BadCondition, Condition, Fields, MAX_LENGTH, NAMES, Subject, Untold};
    use cel::common::ast::{EntryExpr, Expr, IdedExpr};
    use cel::{Context, Env, ExecutionError, Value};
    use std::collections::HashMap;
    use std::sync::LazyLock;

    /// How deep operators and brackets may lie in each other.
    const MAX_DEPTH: usize = 32;

    static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

    /// What a condition may call; operators have names of their own, which begin with `_`, `-`, `!` or `@`.
    const FUNCTIONS: [&str; 13] = [
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "string",
        "int",
        "uint",
        "double",
        "bool",
        "type",
        "min",
        "max",
        "dyn",
    ];

    impl Condition {
        /// Compiles a condition.
        ///
        /// # Errors
        /// Where it is not CEL, too long or too deep, uses a name or a function that there is not, or comes out
        /// as something else than true or false.
        pub fn compile(source: &str) -> Result<Self, BadCondition> {
            let at = |place: usize, message: String| {
                let before = &source[..place];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                BadCondition { line, column, message }
            };
            if source.len() > MAX_LENGTH || nesting(source) > MAX_DEPTH {
                return Err(at(
                    0,
                    format!("too long; at most {MAX_LENGTH} bytes and {MAX_DEPTH} brackets in each other"),
                ));
            }
            if source.trim().is_empty() {
                return Err(at(0, "it is empty; write one such as `bytes > 1000`, or leave it out".into()));
            }
            let program = LANGUAGE.compile(source).map_err(|errors| match errors.errors.first() {
                Some(error) => BadCondition {
                    line: usize::try_from(error.pos.0).unwrap_or(1).max(1),
                    column: usize::try_from(error.pos.1).unwrap_or(1).max(1),
                    message: match error.msg.contains("'<EOF>'") {
                        true => "it ends too soon; write what follows".into(),
                        false => error.msg.trim_start_matches("Syntax error: ").to_owned(),
                    },
                },
                None => at(0, "not CEL".into()),
            })?;
            let mut own = Vec::new();
            bounded(program.expression(), Bounds::default(), &mut own).map_err(|message| at(0, message))?;
            let mut fields = Fields::NONE;
            for name in sorted(program.references().variables()) {
                match NAMES.iter().find(|(known, _)| *known == name) {
                    Some((_, field)) => fields = fields | *field,
                    None if own.iter().any(|known| known == name) => {}
                    None => return Err(unknown(at, source, "name", name, NAMES.map(|(name, _)| name))),
                }
            }
            for name in sorted(program.references().functions()) {
                if !name.starts_with(['_', '-', '!', '@']) && !FUNCTIONS.contains(&name) {
                    return Err(unknown(at, source, "function", name, FUNCTIONS));
                }
            }
            let condition = Self { source: source.into(), fields, program: Arc::new(program) };
            // Types do not depend on the call: what is no truth for one is none for any.
            let sample = Subject { bytes: Some(0), ..Subject::default() };
            match condition.value(&sample) {
                Ok(Value::Bool(_)) => Ok(condition),
                Ok(_) => Err(at(
                    0,
                    "it comes out as something else than true or false; compare it with something".into(),
                )),
                Err(
                    error @ (ExecutionError::NoSuchOverload(_)
                    | ExecutionError::UnsupportedBinaryOperator(..)
                    | ExecutionError::UnexpectedType { .. }
                    | ExecutionError::InvalidArgumentCount { .. }
                    | ExecutionError::UndeclaredReference(_)),
                ) => Err(at(0, error.to_string())),
                Err(_) => Ok(condition), // A tag that only some calls have, say.
            }
        }

        /// Whether it holds for a call.
        ///
        /// # Errors
        /// Where it cannot be told: a tag that the call does not have, an unknown number of bytes, a number out
        /// of range.
        pub fn holds(&self, subject: &Subject<'_>) -> Result<bool, Untold> {
            match self.value(subject) {
                Ok(Value::Bool(holds)) => Ok(holds),
                Ok(_) => Err(Untold("it came out as something else than true or false".into())),
                Err(error) => Err(Untold(error.to_string())),
            }
        }

        fn value(&self, subject: &Subject<'_>) -> Result<Value, ExecutionError> {
            let mut context = Context::with_env(Arc::clone(&LANGUAGE));
            for (name, field) in NAMES {
                if self.fields.contains(field) {
                    context.add_variable_from_value(name, variable(field, subject));
                }
            }
            self.program.execute(&context)
        }
    }

    fn variable(field: Fields, subject: &Subject<'_>) -> Value {
        let caller = subject.caller;
        match field {
            Fields::VENDOR_TAG => subject.vendor_tags.iter().map(String::as_str).collect::<Vec<_>>().into(),
            Fields::TAG => {
                let tags = subject.tags.split(',').filter_map(|tag| tag.split_once('='));
                tags.collect::<HashMap<&str, &str>>().into()
            }
            Fields::CALLER => HashMap::from([
                ("service", caller.service.as_str()),
                ("executable", caller.executable.as_str()),
                ("user", caller.user.as_str()),
                ("container", caller.container.as_str()),
            ])
            .into(),
            Fields::DATA => subject.data.to_vec().into(),
            Fields::BYTES => match subject.bytes {
                Some(bytes) => Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX)),
                None => Value::Null,
            },
            field => field.iter().next().map_or(Value::Null, |field| subject.text(field).into()),
        }
    }

    fn sorted(mut names: Vec<&str>) -> Vec<&str> {
        names.sort_unstable();
        names
    }

    fn unknown<const N: usize>(
        at: impl Fn(usize, String) -> BadCondition,
        source: &str,
        kind: &str,
        name: &str,
        known: [&str; N],
    ) -> BadCondition {
        let likeness = |known: &&str| strsim::jaro_winkler(name, known);
        let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = match nearest {
            Some(nearest) if likeness(nearest) > 0.7 => format!("did you mean `{nearest}`?"),
            _ => format!("the {kind}s here are {}", known.map(|name| format!("`{name}`")).join(", ")),
        };
        at(source.find(name).unwrap_or(0), format!("unknown {kind} `{name}`; {hint}"))
    }

    /// How many brackets lie in each other, those in texts counted too: a cheap bound before the parser runs.
    fn nesting(source: &str) -> usize {
        let (mut depth, mut most) = (0_usize, 0);
        for byte in source.bytes() {
            match byte {
                b'(' | b'[' | b'{' | b'?' | b'!' | b'-' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            most = most.max(depth);
        }
        most
    }

    /// How deep an expression lies within others.
    #[derive(Clone, Copy, Default)]
    struct Bounds {
        depth: usize,
        loops: usize,
    }

    /// Refuses what lies too deep and a loop within a loop, and gathers the names that loops bring.
    fn bounded(expression: &IdedExpr, within: Bounds, own: &mut Vec<String>) -> Result<(), String> {
        if within.depth >= MAX_DEPTH {
            return Err(format!("too deep; at most {MAX_DEPTH} operators in each other; write two rules"));
        }
        let inside = Bounds { depth: within.depth + 1, ..within };
        match &expression.expr {
            Expr::Comprehension(inner) => {
                if within.loops > 0 {
                    return Err("a loop within a loop; write two conditions, or two rules".into());
                }
                own.extend([inner.iter_var.clone(), inner.accu_var.clone()]);
                own.extend(inner.iter_var2.clone());
                let inside = Bounds { loops: 1, ..inside };
                [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
                    .into_iter()
                    .try_for_each(|part| bounded(part, inside, own))
            }
            Expr::Call(call) => {
                let parts = call.target.iter().map(AsRef::as_ref).chain(&call.args);
                parts.into_iter().try_for_each(|part| bounded(part, inside, own))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|part| bounded(part, inside, own)),
            Expr::Select(select) => bounded(&select.operand, inside, own),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    bounded(&entry.key, inside, own).and_then(|()| bounded(&entry.value, inside, own))
                }
                EntryExpr::StructField(field) => bounded(&field.value, inside, own),
            }),
            Expr::Struct(_) => Err("messages cannot be made here".into()),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({:?})", self.source)
    }
}

#[cfg(test)]
#[cfg(feature = "cel")]
mod tests {
    use super::*;
    use crate::Caller;

    fn holds(source: &str) -> Result<bool, Untold> {
        let tags = ["llm".to_owned()];
        let caller = Caller { service: "billing".into(), user: "www".into(), ..Caller::default() };
        let subject = Subject {
            vendor: "openai",
            vendor_tags: &tags,
            customer: "acme",
            tags: "env=prod,team=core",
            caller: &caller,
            data: &["card"],
            bytes: Some(2_000),
            ..Subject::default()
        };
        Condition::compile(source).unwrap_or_else(|error| panic!("{source}: {error}")).holds(&subject)
    }

    #[test]
    fn a_condition_sees_the_call() {
        for source in [
            "vendor == 'openai' && bytes > 1024",
            "'llm' in vendor_tags && 'card' in data && size(data) == 1",
            "caller.service.startsWith('bil') || caller.user == 'root'",
            "tags.team == 'core' && has(tags.env) && !has(tags.region)",
            "data.exists(kind, kind == 'card') && data.all(kind, kind != 'iban')",
            "customer.endsWith('me') ? country == '' : false",
            "bytes != null && bytes / 1000 == 2",
        ] {
            assert_eq!(holds(source), Ok(true), "{source}");
            assert_eq!(holds(&format!("!({source})")), Ok(false), "{source}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error_and_no_panic() {
        for source in ["tags.nope == 'x'", "1 / (bytes - 2000) == 1", "bytes * 9223372036854775807 > 0"] {
            assert!(holds(source).is_err(), "{source}");
        }
        let unknown = Condition::compile("bytes > 5").unwrap();
        assert!(unknown.holds(&Subject::default()).is_err(), "unknown bytes are not few bytes");
    }

    #[test]
    fn a_bad_condition_says_where_and_what_instead() {
        let why = |source: &str| Condition::compile(source).unwrap_err().to_string();
        assert_eq!(
            why("true &&\n vendr == 'x'"),
            "line 2, column 2: unknown name `vendr`; did you mean `vendor`?"
        );
        assert!(why("vendor.startWith('x')").contains("did you mean `startsWith`?"));
        assert!(why("vendor ==").starts_with("line 1, column 1"), "{}", why("vendor =="));
        assert!(why("bytes").contains("true or false"));
        assert!(why("bytes + vendor == 1").contains("add"));
        assert!(why("vendor.matches('a')").contains("unknown function `matches`"));
        assert!(why("data.all(a, data.all(b, a == b))").contains("a loop within a loop"));
        assert!(why(&"(".repeat(600)).contains("too long"));
        assert!(why(&format!("{}true", "!".repeat(600))).contains("too long"));
        assert!(why(&"true && ".repeat(200)).contains("too long"));
    }

    /// Compiles and asks on half the stack that threads have; whether each compiled.
    fn on_a_small_stack(sources: Vec<String>) -> Vec<bool> {
        let run = move || {
            let ask = |source: &String| {
                Condition::compile(source).is_ok_and(|condition| {
                    let _ = condition.holds(&Subject::default());
                    true
                })
            };
            sources.iter().map(ask).collect()
        };
        #[allow(clippy::disallowed_methods)]
        std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap()
    }

    #[test]
    fn the_longest_and_deepest_conditions_fit_a_small_stack() {
        let good = [
            vec!["true"; 60].join(" && "),
            format!("{}true{}", "(".repeat(30), ")".repeat(30)),
            format!("{} == 31", vec!["1"; 31].join("+")),
        ];
        assert_eq!(on_a_small_stack(good.to_vec()), [true; 3]);
        let bad = [
            format!("vendor{}", ".a".repeat(500)),
            format!("{} == 1", vec!["1"; 500].join("+")),
            format!("vendor{}", "[0]".repeat(330)),
            format!("size(vendor{}) == 1", ".size()".repeat(140)),
            vec!["a"; 200].join("?b:"),
            vec!["1"; 300].join("<="),
            vec!["1"; 250].join(" in "),
        ];
        let count = bad.len();
        assert_eq!(on_a_small_stack(bad.to_vec()), vec![false; count]);
    }

    #[test]
    fn arithmetic_at_its_ends_is_an_error_and_no_panic() {
        for source in [
            "(-9223372036854775807 - 1 - bytes) / -1 == 1",
            "(-9223372036854775807 - 1 + bytes - bytes) / -1 == 1",
            "(-9223372036854775807 - 1 + bytes - bytes) % -1 == 1",
            "-(-9223372036854775807 - 1 + bytes - bytes) == 1",
            "uint(bytes) - 3000u == 1u",
            "uint(-bytes) == 1u",
            "int(1e300) == bytes",
            "int(customer) == 1",
            "bytes % (bytes - 2000) == 1",
            "data[bytes] == 'x'",
            "data[-1] == 'x'",
            "tags[customer] == 'x'",
            "double(customer) > 1.0",
            "1.0 / double(bytes - 2000) > 1.0 && tags.nope == ''",
        ] {
            // Told or not, without a panic.
            if let Ok(condition) = Condition::compile(source) {
                let tags = "env=prod";
                let subject =
                    Subject { bytes: Some(2_000), customer: "é", tags, data: &["a"], ..Subject::default() };
                assert_ne!(condition.holds(&subject), Ok(true), "{source}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            tokens in proptest::collection::vec(proptest::sample::select(vec![
                "vendor", "bytes", "data", "tags", "caller", ".", "service", "(", ")", "[", "]", "{", "}", ":", ",",
                "size", "contains", "exists", "all", "map", "has", "x", "==", "!=", "<", ">=", "+", "-", "*", "/", "%",
                "!", "&&", "||", "?", "in", "1", "0", "-1", "2u", "1.5", "'a'", "'é'", "\"", "b'a'", "null", "true",
                "\n", " ", "9223372036854775807", "99999999999999999999", "\\", "r'", "?.", "@", "é", "`",
            ]), 0..24),
        ) {
            if let Ok(condition) = Condition::compile(&tokens.concat()) {
                let subject = Subject { bytes: Some(7), customer: "é", tags: "a=b", data: &["é"], ..Subject::default() };
                let _ = condition.holds(&subject);
            }
        }
    }
}
