//! The options of iptables itself (`original_opts` in iptables/xshared.c).

/// The value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    One,
    /// Only behind `=`; the next word is looked at by the option itself.
    Attached,
}

const OPTIONS: [(&str, char, Value); 37] = [
    ("append", 'A', Value::One),
    ("delete", 'D', Value::One),
    ("check", 'C', Value::One),
    ("insert", 'I', Value::One),
    ("replace", 'R', Value::One),
    ("list", 'L', Value::Attached),
    ("list-rules", 'S', Value::Attached),
    ("flush", 'F', Value::Attached),
    ("zero", 'Z', Value::Attached),
    ("new-chain", 'N', Value::One),
    ("delete-chain", 'X', Value::Attached),
    ("rename-chain", 'E', Value::One),
    ("policy", 'P', Value::One),
    ("source", 's', Value::One),
    ("destination", 'd', Value::One),
    ("src", 's', Value::One),
    ("dst", 'd', Value::One),
    ("protocol", 'p', Value::One),
    ("in-interface", 'i', Value::One),
    ("jump", 'j', Value::One),
    ("table", 't', Value::One),
    ("match", 'm', Value::One),
    ("numeric", 'n', Value::None),
    ("out-interface", 'o', Value::One),
    ("verbose", 'v', Value::None),
    ("wait", 'w', Value::Attached),
    ("wait-interval", 'W', Value::Attached),
    ("exact", 'x', Value::None),
    ("fragments", 'f', Value::None),
    ("version", 'V', Value::None),
    ("help", 'h', Value::Attached),
    ("line-numbers", '0', Value::None),
    ("modprobe", 'M', Value::One),
    ("set-counters", 'c', Value::One),
    ("goto", 'g', Value::One),
    ("ipv4", '4', Value::None),
    ("ipv6", '6', Value::None),
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
pub(super) fn value_of(letter: char) -> Option<Value> {
    let mut options = OPTIONS.iter();
    options
        .find(|(_, of, _)| *of == letter)
        .map(|(_, _, value)| *value)
}
