//! The options of iptables itself (`original_opts` in iptables/xshared.c).

/// The value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnValue {
    None,
    One,
    /// Only behind `=`; the next word is looked at by the option itself.
    Attached,
}

const OPTIONS: [(&str, char, OwnValue); 37] = [
    ("append", 'A', OwnValue::One),
    ("delete", 'D', OwnValue::One),
    ("check", 'C', OwnValue::One),
    ("insert", 'I', OwnValue::One),
    ("replace", 'R', OwnValue::One),
    ("list", 'L', OwnValue::Attached),
    ("list-rules", 'S', OwnValue::Attached),
    ("flush", 'F', OwnValue::Attached),
    ("zero", 'Z', OwnValue::Attached),
    ("new-chain", 'N', OwnValue::One),
    ("delete-chain", 'X', OwnValue::Attached),
    ("rename-chain", 'E', OwnValue::One),
    ("policy", 'P', OwnValue::One),
    ("source", 's', OwnValue::One),
    ("destination", 'd', OwnValue::One),
    ("src", 's', OwnValue::One),
    ("dst", 'd', OwnValue::One),
    ("protocol", 'p', OwnValue::One),
    ("in-interface", 'i', OwnValue::One),
    ("jump", 'j', OwnValue::One),
    ("table", 't', OwnValue::One),
    ("match", 'm', OwnValue::One),
    ("numeric", 'n', OwnValue::None),
    ("out-interface", 'o', OwnValue::One),
    ("verbose", 'v', OwnValue::None),
    ("wait", 'w', OwnValue::Attached),
    ("wait-interval", 'W', OwnValue::Attached),
    ("exact", 'x', OwnValue::None),
    ("fragments", 'f', OwnValue::None),
    ("version", 'V', OwnValue::None),
    ("help", 'h', OwnValue::Attached),
    ("line-numbers", '0', OwnValue::None),
    ("modprobe", 'M', OwnValue::One),
    ("set-counters", 'c', OwnValue::One),
    ("goto", 'g', OwnValue::One),
    ("ipv4", '4', OwnValue::None),
    ("ipv6", '6', OwnValue::None),
];

/// Returns the letter of an option by its long name.
pub(super) fn long(name: &str) -> Option<char> {
    let mut options = OPTIONS.iter();
    options
        .find(|(long, ..)| *long == name)
        .map(|(_, letter, _)| *letter)
}

/// Returns the letters of the options whose long names begin with a text, in order and each once.
pub(super) fn beginning_with(start: &str) -> Vec<char> {
    let begins = OPTIONS.iter().filter(|(long, ..)| long.starts_with(start));
    let mut letters: Vec<char> = begins.map(|(_, letter, _)| *letter).collect();
    letters.sort_unstable();
    letters.dedup();
    letters
}

/// Returns the value of the option with a letter; `None` if there is no such option.
pub(super) fn value_of(letter: char) -> Option<OwnValue> {
    let mut options = OPTIONS.iter();
    options
        .find(|(_, of, _)| *of == letter)
        .map(|(_, _, value)| *value)
}
