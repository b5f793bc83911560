//! A table of the file, read key by key: each key that is asked for is known, each that is left over is an
//! error with the nearest known one, or with the table in which it belongs.

mod numbers;

use super::duration::{is_too_long, is_zero};
use super::elsewhere::Elsewhere;
use super::{ConfigError, parse_duration};
use std::cell::{OnceCell, RefCell};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The place where errors gather while a file is read.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    errors: RefCell<Vec<(usize, ConfigError)>>,
    /// Where each line begins; made when the first is asked for.
    lines: OnceCell<Vec<usize>>,
    /// Reads the root of any such file, for nothing but the keys that it asks for.
    outline: &'t dyn Fn(&mut Section<'_, '_>),
    /// The keys of the whole file; learnt when the first is unknown.
    elsewhere: OnceCell<Elsewhere>,
}

impl<'t> Report<'t> {
    fn new(file: &'t str, text: &'t str, outline: &'t dyn Fn(&mut Section<'_, '_>)) -> Self {
        let (errors, lines, elsewhere) = (RefCell::default(), OnceCell::new(), OnceCell::new());
        Self { file, text, errors, lines, outline, elsewhere }
    }

    fn add(&self, offset: usize, message: impl Into<String>) {
        let error = ConfigError::at(self.file, self.text, offset, message);
        self.errors.borrow_mut().push((offset, error));
    }
}

/// One table of the file.
pub(super) struct Section<'t, 'd> {
    report: &'t Report<'t>,
    table: &'d DeTable<'d>,
    offset: usize,
    known: Vec<&'static str>,
    /// Whether every key is allowed.
    free: bool,
    /// Keys that nobody asks for, and of which that is said.
    told: Vec<&'d str>,
    children: Vec<(&'static str, Vec<Section<'t, 'd>>)>,
    /// What it lacks: the key, where it is one, and the message.
    lacks: RefCell<Vec<(Option<String>, String)>>,
}

/// Parses `text`, lets `read` ask for what it knows, and gives all errors in the order of the file. `outline` asks for
/// the same keys, and so tells where those belong that are unknown.
pub(super) fn read_outlined(
    file: &str,
    text: &str,
    outline: &dyn Fn(&mut Section<'_, '_>),
    read: impl FnOnce(&mut Section<'_, '_>),
) -> Vec<ConfigError> {
    let report = Report::new(file, text, outline);
    match DeTable::parse(text) {
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            report.add(offset, format!("this is not TOML: {}", error.message().trim()));
        }
        Ok(root) => {
            let mut section = Section::new(&report, root.get_ref(), 0);
            read(&mut section);
            section.finish();
        }
    }
    let mut errors = report.errors.into_inner();
    errors.sort_by_key(|(offset, _)| *offset);
    errors.into_iter().map(|(_, error)| error).collect()
}

/// The same of a part of a file alone.
#[cfg(test)]
pub(super) fn read(file: &str, text: &str, read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<ConfigError> {
    read_outlined(file, text, &|_| {}, read)
}

/// The keys that `read` asks for in `text`: at its root, or in its first table of this name.
pub(super) fn known(
    text: &str,
    table: Option<&str>,
    read: &dyn Fn(&mut Section<'_, '_>),
) -> Vec<&'static str> {
    let report = Report::new("", text, &|_| {});
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let mut root = Section::new(&report, root.get_ref(), 0);
    read(&mut root);
    let Some(table) = table else { return root.known };
    let sections = root.children.into_iter().filter(|(name, _)| *name == table);
    sections.flat_map(|(_, sections)| sections).next().map_or_else(Vec::new, |section| section.known)
}

impl<'t, 'd> Section<'t, 'd> {
    fn new(report: &'t Report<'t>, table: &'d DeTable<'d>, offset: usize) -> Self {
        let (known, children, lacks) = (Vec::new(), Vec::new(), RefCell::default());
        Self { report, table, offset, known, free: false, told: Vec::new(), children, lacks }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reports a key that must be there; not where it is, misspelt.
    pub(super) fn missing(&self, key: &str, why: &str) {
        self.lacks_for(key, format!("`{key}` is missing; {why}"));
    }

    /// Reports what is wrong for want of a key; not where that is there, misspelt.
    pub(super) fn lacks_for(&self, key: &str, message: impl Into<String>) {
        self.lacks.borrow_mut().push((Some(key.to_owned()), message.into()));
    }

    /// Reports that nothing in the table says anything; not where there is a key that nobody knows.
    pub(super) fn says_nothing(&self, message: impl Into<String>) {
        self.lacks.borrow_mut().push((None, message.into()));
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        self.checked_string(key, |text| Ok(text.to_owned()))
    }

    /// A string that `check` turns into something; its error completes the sentence "`key` is not ...".
    pub(super) fn checked_string<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        self.check(value, &format!("`{key}`"), &check)
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.checked_string(key, |text| {
            parse_duration(text).ok_or_else(|| match is_zero(text) {
                _ if is_too_long(text) => "a duration of less than a hundred years".into(),
                true if key == "deadline" => {
                    r#"a time that a call could keep: a deadline of zero would refuse all; write one such as "30s""#.into()
                }
                true => r#"a duration above zero; write a number and a unit, such as "30s" or "5m""#.into(),
                false => r#"a duration; write a number and a unit, such as "30s", "5m", "1h" or "7d""#.into(),
            })
        })
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        if let DeValue::Boolean(yes) = value.get_ref() {
            return Some(*yes);
        }
        let remedy = match value.get_ref().is_str() {
            true => "write it without quotes",
            false => "write one of these words",
        };
        self.wrong_type(value, &format!("`{key}`"), "true or false", remedy);
        None
    }

    /// The tables whose keys the user names, with these names; what is no table, and was not asked for before, is
    /// reported.
    pub(super) fn named(&mut self) -> (Vec<String>, &mut [Self]) {
        self.free = true;
        let (mut names, mut sections) = (Vec::new(), Vec::new());
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            match value.get_ref() {
                _ if self.known.contains(&name) => {}
                DeValue::Table(table) => {
                    names.push(name.to_owned());
                    sections.push(Section::new(self.report, table, value.span().start));
                }
                _ => self.wrong_type(value, &format!("`{name}`"), "a table", "write `name.key = ...`"),
            }
        }
        self.children.push(("", sections));
        (names, self.children.last_mut().map_or(&mut [], |(_, sections)| sections.as_mut_slice()))
    }

    /// One word out of a few.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.checked_string(key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, what)| *what).ok_or_else(|| {
                let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("one of {}", known.join(", "))
            })
        })
    }

    /// Where the table begins: the line, from 1. Rules without a name are known by it.
    pub(super) fn line(&self) -> usize {
        let text = self.report.text;
        let starts = || std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1));
        self.report.lines.get_or_init(|| starts().collect()).partition_point(|start| *start <= self.offset)
    }

    /// Reports each key of which `what` says why there is no such one.
    pub(super) fn refuse(&mut self, what: impl Fn(&str) -> Option<String>) {
        for key in self.table.keys() {
            let name: &'d str = key.get_ref();
            if let Some(message) = what(name) {
                self.report.add(key.span().start, message);
                self.told.push(name);
            }
        }
    }

    /// Reports something about the table as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.report.add(self.offset, message);
    }

    /// Reports something about a place in the table.
    pub(super) fn wrong_at(&self, offset: usize, message: impl Into<String>) {
        self.report.add(offset, message);
    }

    /// A list of strings; what `check` refuses is reported and left out.
    pub(super) fn list<T>(&mut self, key: &'static str, check: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(value, &format!("`{key}`"), "a list", "put it in square brackets");
            return Vec::new();
        };
        let what = format!("an entry of `{key}`");
        items.iter().filter_map(|item| self.check(item, &what, &check)).collect()
    }

    /// A table whose keys the user names, each with a string; what `check` refuses, in a whole sentence, is reported
    /// and left out. `remedy` says how to write the table.
    pub(super) fn strings<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        check: impl Fn(&str, &str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, &format!("`{key}`"), "a table", remedy);
            return Vec::new();
        };
        let mut strings = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            match value.get_ref().as_str().map(|text| check(name, text)) {
                Some(Ok(string)) => strings.push(string),
                Some(Err(wrong)) => self.report.add(key.span().start, wrong),
                None => self.wrong_type(value, &format!("`{name}`"), "a string", "write it in quotes"),
            }
        }
        strings
    }

    /// The table `[key]`.
    pub(super) fn table(&mut self, key: &'static str) -> Option<&mut Self> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, &format!("`{key}`"), "a table", &format!("write a section [{key}]"));
            return None;
        };
        let child = Section::new(self.report, table, value.span().start);
        self.children.push((key, vec![child]));
        self.children.last_mut().and_then(|(_, sections)| sections.first_mut())
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> &mut [Self] {
        let mut sections = Vec::new();
        if let Some(value) = self.value(key) {
            let remedy = format!("write sections [[{key}]]");
            match value.get_ref() {
                DeValue::Array(items) => {
                    for item in items.iter() {
                        match item.get_ref() {
                            DeValue::Table(table) => {
                                sections.push(Section::new(self.report, table, item.span().start))
                            }
                            _ => self.wrong_type(item, &format!("an entry of `{key}`"), "a table", &remedy),
                        }
                    }
                }
                _ => self.wrong_type(value, &format!("`{key}`"), "a list of tables", &remedy),
            }
        }
        self.children.push((key, sections));
        self.children.last_mut().map_or(&mut [], |(_, sections)| sections.as_mut_slice())
    }

    /// The tables `[[key]]`, or the one table `key = { ... }`.
    pub(super) fn some_tables(&mut self, key: &'static str) -> &mut [Self] {
        let is_table = matches!(self.table.get(key).map(Spanned::get_ref), Some(DeValue::Table(_)));
        if is_table { self.table(key).map_or(&mut [], std::slice::from_mut) } else { self.tables(key) }
    }

    /// A value as it is, for what these readers do not know.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        // A reader may ask for a key that the readers of all rules asked for before it.
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn check<T>(
        &self,
        value: &Spanned<DeValue<'_>>,
        what: &str,
        check: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            let number = match value.get_ref() {
                DeValue::Integer(number) => number.as_str(),
                DeValue::Float(number) => number.as_str(),
                _ => "",
            };
            match check(number) {
                // What it would be in quotes is no more right.
                Err(wanted) if !number.is_empty() => {
                    let (wanted, remedy) = wanted.split_once("; ").unwrap_or((&wanted, "write it in quotes"));
                    self.wrong_type(value, what, wanted, remedy);
                }
                Ok(_) if !number.is_empty() => {
                    self.wrong_type(value, what, "a string", &format!("write it in quotes: \"{number}\""));
                }
                _ => self.wrong_type(value, what, "a string", "write it in quotes"),
            }
            return None;
        };
        check(text).map_err(|not| self.report.add(value.span().start, format!("{what} is not {not}"))).ok()
    }

    pub(super) fn wrong_type(&self, value: &Spanned<DeValue<'_>>, what: &str, wanted: &str, remedy: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report.add(value.span().start, format!("{what} is {found}, not {wanted}; {remedy}"));
    }

    /// Reports the keys that nobody asked for, and what the table lacks, unless one of these explains it.
    fn finish(self) {
        let unknown = |name: &&str| !self.free && !self.known.contains(name) && !self.told.contains(name);
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if unknown(&name) {
                self.report.add(key.span().start, format!("unknown key `{name}`; {}", self.hint(name)));
            }
        }
        let unknown: Vec<&str> =
            self.table.keys().map(|key| key.get_ref().as_ref()).filter(unknown).collect();
        for (key, message) in self.lacks.take() {
            let is_meant =
                |name: &&str| key.as_deref().is_none_or(|key| nearest(name, &self.known) == Some(key));
            if !unknown.iter().any(is_meant) {
                self.report.add(self.offset, message);
            }
        }
        for (_, sections) in self.children {
            sections.into_iter().for_each(Section::finish);
        }
    }
    /// What was meant by a key that nobody asked for.
    fn hint(&self, name: &str) -> String {
        let nearest = nearest(name, &self.known);
        let near = |least: f64| nearest.filter(|nearest| strsim::jaro_winkler(name, nearest) > least);
        let elsewhere = self.report.elsewhere.get_or_init(|| Elsewhere::learn(self.report.outline));
        match elsewhere.place_of(name, &self.known) {
            Some(place) => match near(0.9) {
                Some(nearest) => format!("did you mean `{nearest}`? `{name}` belongs {place}"),
                None => format!("it belongs {place}"),
            },
            None => match near(0.7) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!(
                    "the keys here are {}",
                    self.known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                ),
            },
        }
    }
}

/// The one of these names that `wanted` is most like; `None` where it is like none.
pub(super) fn nearest<'k>(
    wanted: &str,
    known: impl IntoIterator<Item = &'k (impl AsRef<str> + ?Sized + 'k)>,
) -> Option<&'k str> {
    let known = known.into_iter().map(AsRef::as_ref);
    let likeness = |known: &str| strsim::jaro_winkler(wanted, known);
    let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) > 0.7).then_some(nearest)
}
