//! `[advise]`: what is remembered for `farcall advise`.

use super::section::Section;
use crate::advise::{AdviseConfig, Compare};

pub(super) fn read(section: &mut Section<'_, '_>) -> AdviseConfig {
    let default = AdviseConfig::default();
    AdviseConfig {
        enabled: section.boolean("enabled").unwrap_or(default.enabled),
        compare: section
            .choice("compare", &[("passing", Compare::Passing), ("all", Compare::All)])
            .unwrap_or(default.compare),
    }
}

#[cfg(test)]
mod tests {
    use crate::advise::{AdviseConfig, Compare};
    use crate::config::Config;

    #[test]
    fn it_is_on_unless_the_file_says_otherwise_and_a_mistake_is_told() {
        assert_eq!(Config::parse("f", "").unwrap().advise, AdviseConfig::default());
        let config = Config::parse("f", "[advise]\nenabled = false\ncompare = \"all\"\n").unwrap();
        assert_eq!(config.advise, AdviseConfig { enabled: false, compare: Compare::All });
        for bad in ["compare = \"some\"", "enabled = \"no\"", "enabledd = true"] {
            assert!(Config::parse("f", &format!("[advise]\n{bad}\n")).is_err(), "{bad}");
        }
    }
}
