//! Attribution: which program makes a call, and on whose behalf.

use std::fmt;

/// The most tags that one call may carry; further ones are dropped and counted.
pub const MAX_TAGS: usize = 8;
/// The longest customer name or tag in bytes; a longer one is cut at a character's border and counted.
pub const MAX_NAME: usize = 128;
/// The customer of a call that nobody attributed.
pub const UNKNOWN: &str = "unknown";

/// The number under which an [`Engine`](crate::Engine) knows a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerId(pub(crate) u32);

impl CallerId {
    /// The program that the engine lives in.
    pub const SELF: Self = Self(0);
}

/// The program that makes calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Caller {
    /// The service's name, as its owner calls it.
    pub service: String,
    /// The executable's path, where known.
    pub executable: String,
    /// The process id, in the process's own PID namespace; 0 where it means nothing.
    pub pid: u32,
    /// That PID namespace, as the inode of `/proc/PID/ns/pid` (pid_namespaces(7)): tells apart the processes of
    /// containers, each of which may have the pid 1. 0 where unknown.
    pub pid_namespace: u64,
    /// When the process started, in clock ticks since boot (`/proc/PID/stat`, field 22): tells apart two
    /// processes that had the same pid. 0 where unknown.
    pub started: u64,
    /// The container's id, where there is one.
    pub container: String,
    /// The user's name or number.
    pub user: String,
}

impl Caller {
    /// A caller of which only the service's name is known.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into(), ..Self::default() }
    }
}

/// A set of tags in its one written form: `key=value` pairs, sorted by key, the last value of a key,
/// separated by commas. Built on the stack.
pub(crate) struct TagText {
    text: crate::ledger::Text<{ MAX_TAGS * 2 * MAX_NAME }>,
    /// Whether something was cut or dropped.
    pub(crate) cut: bool,
}

impl TagText {
    pub(crate) fn new(tags: &[(&str, &str)]) -> Self {
        let mut text = Self { text: crate::ledger::Text::new(), cut: tags.len() > MAX_TAGS };
        let mut order = [0_usize; MAX_TAGS];
        let count = tags.len().min(MAX_TAGS);
        for (index, slot) in order.iter_mut().enumerate() {
            *slot = index;
        }
        let order = &mut order[..count];
        order.sort_unstable_by_key(|&index| (tags[index].0, index));
        for (position, &index) in order.iter().enumerate() {
            let (key, value) = tags[index];
            let repeated = order.get(position + 1).is_some_and(|&next| tags[next].0 == key);
            if key.is_empty() || repeated {
                continue;
            }
            if !text.text.as_str().is_empty() {
                text.text.push(",");
            }
            text.push_part(key);
            text.text.push("=");
            text.push_part(value);
        }
        text
    }

    fn push_part(&mut self, part: &str) {
        let kept = cut(part);
        self.cut |= kept.len() < part.len();
        for piece in kept.split_inclusive([',', '=']) {
            match piece.strip_suffix([',', '=']) {
                // The separators themselves would make two sets look alike.
                Some(clean) => {
                    self.text.push(clean);
                    self.text.push("_");
                }
                None => self.text.push(piece),
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.text.as_str()
    }
}

impl fmt::Debug for TagText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// At most [`MAX_NAME`] bytes of a name, cut at a character's border.
pub(crate) fn cut(name: &str) -> &str {
    if name.len() <= MAX_NAME {
        return name;
    }
    &name[..name.floor_char_boundary(MAX_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_one_written_form() {
        let text = TagText::new(&[("team", "growth"), ("env", "prod"), ("team", "core")]);
        assert_eq!(text.as_str(), "env=prod,team=core");
        assert!(!text.cut);
    }

    #[test]
    fn separators_in_tags_cannot_forge_another_tag() {
        assert_eq!(TagText::new(&[("a", "b,c=d")]).as_str(), "a=b_c_d");
    }

    #[test]
    fn too_many_and_too_long_tags_are_cut_and_say_so() {
        let long = "é".repeat(100);
        let text = TagText::new(&[("k", &long)]);
        assert!(text.cut && text.as_str().len() <= 2 + MAX_NAME);
        let many: Vec<(String, String)> = (0..20).map(|n| (format!("k{n:02}"), "v".into())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let text = TagText::new(&many);
        assert!(text.cut);
        assert_eq!(text.as_str().split(',').count(), MAX_TAGS);
    }
}
