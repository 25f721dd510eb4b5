//! Marks and their masks.

use super::number;

/// Reads `1`, `0x1` or `0x1/0xff`: the value, and the mask if there is one.
pub fn read(typed: &str) -> Option<(u32, Option<u32>)> {
    match typed.split_once('/') {
        Some((value, mask)) => Some((number(value)?, Some(number(mask)?))),
        None => Some((number(typed)?, None)),
    }
}

/// Spells the mark that a match asks for: without a mask that has all bits.
pub fn asked(typed: &str) -> Option<String> {
    Some(match read(typed)? {
        (value, None | Some(u32::MAX)) => format!("{value:#x}"),
        (value, Some(mask)) => format!("{value:#x}/{mask:#x}"),
    })
}

/// Spells the `--set-xmark` that an option of MARK or CONNMARK stands for (`MARK_parse` in
/// `extensions/libxt_MARK.c`).
pub fn set_xmark(option: &str, typed: &str) -> Option<String> {
    let (value, mask) = match option {
        "and-mark" => (0, !number(typed)?),
        "or-mark" => (number(typed)?, number(typed)?),
        "xor-mark" => (number(typed)?, 0),
        "set-mark" => {
            let (value, mask) = read(typed)?;
            (value, mask.map_or(u32::MAX, |mask| value | mask))
        }
        _ => {
            let (value, mask) = read(typed)?;
            (value, mask.unwrap_or(u32::MAX))
        }
    };
    Some(format!("{value:#x}/{mask:#x}"))
}
