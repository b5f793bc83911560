//! Numbers, shares and lists of them.

use super::Section;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::DeValue;

impl Section<'_, '_> {
    pub(in crate::config) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            let remedy =
                if value.get_ref().is_str() { "write it without quotes" } else { "write digits only" };
            self.wrong_type(value, &format!("`{key}`"), "a whole number", remedy);
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let number =
            number.and_then(|number| usize::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            self.report.add(
                value.span().start,
                format!("`{key}` is out of range; give a number between {least} and {most}"),
            );
        }
        number
    }

    /// A list of whole numbers; what is none, or out of range, is reported and left out.
    pub(in crate::config) fn numbers(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
    ) -> Vec<usize> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(value, &format!("`{key}`"), "a list", "put it in square brackets");
            return Vec::new();
        };
        let read = |item: &Spanned<DeValue<'_>>| {
            let DeValue::Integer(number) = item.get_ref() else { return None };
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            usize::try_from(number).ok().filter(|number| range.contains(number))
        };
        let (least, most) = (range.start(), range.end());
        let wrong =
            format!("an entry of `{key}` is out of range; give whole numbers between {least} and {most}");
        items
            .iter()
            .filter_map(|item| {
                let number = read(item);
                if number.is_none() {
                    self.report.add(item.span().start, wrong.clone());
                }
                number
            })
            .collect()
    }

    /// A share, as `"20%"` or `0.2`; between 0 and 1.
    pub(in crate::config) fn share(&mut self, key: &'static str) -> Option<f64> {
        let value = self.value(key)?;
        let share = match value.get_ref() {
            DeValue::String(text) => text
                .trim()
                .strip_suffix('%')
                .and_then(|number| number.trim().parse::<f64>().ok())
                .map(|percent| percent / 100.0),
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            let why = format!("`{key}` is not a share; write \"20%\" or 0.2, between 0 and 1");
            self.report.add(value.span().start, why);
        }
        share
    }

    /// The keys of a table that the user names, each with a number; what `check` refuses is reported and left
    /// out. `what` completes the sentence "`key` is not ...".
    pub(in crate::config) fn entries<T>(
        &mut self,
        what: &str,
        check: impl Fn(f64) -> Option<T>,
    ) -> Vec<(String, T)> {
        self.free = true;
        let mut entries = Vec::new();
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            let number: Option<f64> = match value.get_ref() {
                DeValue::Integer(number) => number.as_str().parse().ok(),
                DeValue::Float(number) => number.as_str().parse().ok(),
                _ => None,
            };
            match number.and_then(&check) {
                Some(entry) => entries.push((name.to_owned(), entry)),
                None => self.report.add(value.span().start, format!("`{name}` is not {what}")),
            }
        }
        entries
    }

    /// A number, with or without a fraction.
    pub(in crate::config) fn amount(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        let number: Option<f64> = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let why = format!("`{key}` is not a number between {least} and {most}; write it as in 2.5");
            self.report.add(value.span().start, why);
        }
        number
    }
}
