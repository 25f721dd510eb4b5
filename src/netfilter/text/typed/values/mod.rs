//! Values as people type them, spelled as iptables-save prints them.

pub(super) mod addresses;
pub(super) mod icmp;
pub(super) mod marks;
pub(super) mod ports;
pub(super) mod protocols;
pub(super) mod rates;

/// Reads an unsigned number as `strtoul(3)` with base 0 does: decimal, `0x` hexadecimal, `0` octal.
pub(super) fn number(text: &str) -> Option<u32> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| u32::from_str_radix(digits, base).ok())?
}
