//! Tests as text of a spec.

use serde_json::Value;

use crate::forwards::{OutboundProtocol, PacketTest};

/// Words that other readers of YAML take for something else than text.
const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// Returns the key `tests` with these tests, a line for each. What is written reads back to the same tests, without
/// their places.
#[must_use]
pub fn tests_text(tests: &[PacketTest]) -> String {
    if tests.is_empty() {
        return "tests: []\n".to_owned();
    }
    format!("tests:\n{}", test_lines(tests, 2))
}

/// Returns a line for each of these tests, with so many spaces in front, for a list that has other tests.
#[must_use]
pub fn test_lines(tests: &[PacketTest], indent: usize) -> String {
    let lines = tests
        .iter()
        .map(|test| format!("{:indent$}- {}\n", "", entry(test)));
    lines.collect()
}

/// Returns one test as a mapping in braces.
fn entry(test: &PacketTest) -> String {
    let tcp = OutboundProtocol::Tcp;
    let protocol = Some(test.protocol).filter(|protocol| *protocol != tcp);
    let keys = [
        ("name", test.name.as_ref().map(|name| words(name.as_str()))),
        ("from", Some(value(&test.from.to_string()))),
        ("to", Some(value(&test.to.to_string()))),
        ("protocol", protocol.map(|one| value(one.as_str()))),
        ("in", test.ingress.as_ref().map(|one| words(one.as_str()))),
        ("reaches", Some(value(&test.reaches.to_string()))),
        ("snat", test.snat.map(|snat| value(&snat.to_string()))),
    ];
    let keys = keys.into_iter();
    let keys = keys.filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
    format!("{{{}}}", keys.collect::<Vec<_>>().join(", "))
}

/// Returns free text, in quotes unless every reader of YAML takes it for text.
fn words(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !is_word {
        value(text)
    } else {
        quoted(text)
    }
}

/// Returns a value of a key, in quotes if a character in it means something to YAML.
fn value(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '_' | '-');
    if text.chars().all(is_plain) && !text.ends_with(' ') {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Returns a text in double quotes, which YAML has in common with JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::TestName;
    use crate::yaml::{TestFile, examine_tests};

    #[test]
    fn a_name_is_text_for_every_reader() {
        for (name, written) in [
            ("ssh is not forwarded", "ssh is not forwarded"),
            ("no", "\"no\""),
            ("Null", "\"Null\""),
            ("no ssh", "no ssh"),
            ("80", "\"80\""),
            ("1.5e3", "\"1.5e3\""),
            ("-x", "\"-x\""),
            ("ends with a blank ", "\"ends with a blank \""),
            ("web: port 80", "\"web: port 80\""),
            ("a # b", "\"a # b\""),
            ("a, b} c", "\"a, b} c\""),
            (
                "\"quoted\" \\ 'and' ä→東",
                "\"\\\"quoted\\\" \\\\ 'and' ä→東\"",
            ),
        ] {
            assert_eq!(words(name), written);
            let text =
                format!("tests: [{{name: {written}, from: 192.0.2.7, to: 22, reaches: nothing}}]");
            let other: serde_yaml::Value = serde_yaml::from_str(&text).expect("it is YAML");
            assert_eq!(other["tests"][0]["name"].as_str(), Some(name));
            let reading = examine_tests(&TestFile {
                text: text.as_bytes(),
                networks: &[],
                spec: &[],
                spec_networks: &[],
                interfaces: &[],
            });
            let tests = reading.tests.expect("it is valid");
            let read = tests[0].name.as_ref().map(TestName::as_str);
            // The end of a block of text has a line end, so blanks there have no meaning.
            assert_eq!(read, Some(name.trim_end()));
        }
    }
}
