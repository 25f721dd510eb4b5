//! The forwards that a spec has but switches off.

use super::spec::examine;
use crate::forwards::Name;
use crate::host::spec_source::SpecSource;
use crate::net::words::few;

/// The most forwards that are named.
const MOST_NAMED: usize = 8;

/// Returns the names of the forwards with `enabled: false`.
pub(super) fn disabled(source: &SpecSource) -> Vec<Name> {
    // A second reading of 100,000 forwards costs time, and most specs switch none off.
    let key = b"enabled";
    let has_key = |(_, text): (&str, &[u8])| text.windows(key.len()).any(|some| some == key);
    if !source.texts().any(has_key) {
        return Vec::new();
    }
    examine(source).disabled
}

/// Says which forwards are disabled; `None` if there are none.
pub(super) fn disabled_words(names: &[Name]) -> Option<String> {
    let are = match names {
        [] => return None,
        [_] => "is",
        _ => "are",
    };
    let names = few(names, MOST_NAMED);
    Some(format!(
        "{names} {are} disabled in the spec (enabled: false)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_forwards_are_named() {
        let source = |text: &str| {
            let file = ("f.yaml".to_owned(), text.to_owned());
            SpecSource::kept("f.yaml".to_owned(), [file].into_iter(), [].into_iter())
        };
        let spec = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: 10.224.0.118:80}, enabled: false}
  - {name: dns, listen: 53, target: {pod: 10.224.0.118:53}, enabled: true}
";
        let words = |text: &str| disabled_words(&disabled(&source(text)));
        assert_eq!(
            words(spec).as_deref(),
            Some("web is disabled in the spec (enabled: false)")
        );
        let both = spec.replace("true", "false");
        assert_eq!(
            words(&both).as_deref(),
            Some("web, dns are disabled in the spec (enabled: false)")
        );
        assert_eq!(words(&spec.replace("false", "true")), None);
    }
}
