//! Sets of characters: brackets, escapes, and the names of sets.

use super::{Re2Error, Re2Problem, before, error};

/// The names between `[:` and `:]`; each also with `^` in front.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// The general categories of Unicode that `\p` takes, and `Any`.
const CATEGORIES: [&str; 37] = [
    "Any", "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn",
    "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm",
    "So", "Z", "Zl", "Zp", "Zs",
];

/// Names of categories and properties that other engines take and RE2 never had; no script has such a name.
const FOREIGN: [&str; 24] = [
    "ASCII",
    "Alnum",
    "Alpha",
    "Alphabetic",
    "Blank",
    "Cntrl",
    "Digit",
    "Graph",
    "Letter",
    "Lower",
    "Lowercase",
    "Mark",
    "Number",
    "Other",
    "Print",
    "Punct",
    "Punctuation",
    "Separator",
    "Space",
    "Symbol",
    "Upper",
    "Uppercase",
    "White_Space",
    "XDigit",
];

/// `[...]` at the beginning of `from`; what comes behind it.
pub(super) fn bracketed(from: &str) -> Result<&str, Re2Error<'_>> {
    let mut rest = from.strip_prefix('[').unwrap_or(from);
    rest = rest.strip_prefix('^').unwrap_or(rest);
    let mut is_first = true;
    while !rest.is_empty() && (is_first || !rest.starts_with(']')) {
        is_first = false;
        if let Some(behind) = posix(rest)? {
            rest = behind;
            continue;
        }
        if let Some(behind) = set(rest)? {
            rest = behind;
            continue;
        }
        let (low, behind) = character(rest, from)?;
        let range = rest;
        rest = behind;
        if let Some(upper) =
            rest.strip_prefix('-').filter(|upper| !upper.is_empty() && !upper.starts_with(']'))
        {
            let (high, behind) = character(upper, from)?;
            rest = behind;
            if high < low {
                return Err(error(Re2Problem::CharacterClass, before(range, rest)));
            }
        }
    }
    rest.strip_prefix(']').ok_or(error(Re2Problem::MissingBracket, from))
}

/// One character of a bracket.
fn character<'a>(rest: &'a str, whole: &'a str) -> Result<(u32, &'a str), Re2Error<'a>> {
    if rest.starts_with('\\') {
        return escape(rest);
    }
    let mut chars = rest.chars();
    match chars.next() {
        Some(c) => Ok((c.into(), chars.as_str())),
        None => Err(error(Re2Problem::MissingBracket, whole)),
    }
}

/// `[:alpha:]`; `None` where it is none.
fn posix(from: &str) -> Result<Option<&str>, Re2Error<'_>> {
    let Some(inner) = from.strip_prefix("[:") else { return Ok(None) };
    let Some((name, rest)) = inner.split_once(":]") else { return Ok(None) };
    if POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
        Ok(Some(rest))
    } else {
        Err(error(Re2Problem::CharacterClass, before(from, rest)))
    }
}

/// `\d`, `\pL`, `\p{Greek}`; `None` where it is none.
pub(super) fn set(from: &str) -> Result<Option<&str>, Re2Error<'_>> {
    match from.as_bytes() {
        [b'\\', b'd' | b'D' | b's' | b'S' | b'w' | b'W', ..] => Ok(Some(&from[2..])),
        [b'\\', b'p' | b'P', ..] => unicode(from).map(Some),
        _ => Ok(None),
    }
}

fn unicode(from: &str) -> Result<&str, Re2Error<'_>> {
    let wrong = |problem, rest| Err(error(problem, before(from, rest)));
    let named = &from[2..];
    let (name, rest) = match named.strip_prefix('{') {
        Some(inner) => match inner.split_once('}') {
            Some(both) => both,
            None => return wrong(Re2Problem::CharacterClass, ""),
        },
        None => match named.chars().next() {
            Some(one) => named.split_at(one.len_utf8()),
            None => return wrong(Re2Problem::CharacterClass, ""),
        },
    };
    let name = name.strip_prefix('^').unwrap_or(name);
    if CATEGORIES.contains(&name) || super::scripts::SCRIPTS.contains(&name) {
        return Ok(rest);
    }
    // A later version of Unicode brings new scripts: what looks like the name of one may be taken elsewhere.
    let looks_like_script = name.len() > 3
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
        && !FOREIGN.contains(&name);
    wrong(
        if looks_like_script { Re2Problem::UnknownScript } else { Re2Problem::CharacterClass },
        rest,
    )
}

/// An escape that stands for one character, and what comes behind it.
pub(super) fn escape(from: &str) -> Result<(u32, &str), Re2Error<'_>> {
    let mut chars = from.chars();
    chars.next();
    let Some(escaped) = chars.next() else {
        return Err(error(Re2Problem::TrailingBackslash, from));
    };
    let rest = chars.as_str();
    let wrong = |rest| Err(error(Re2Problem::Escape, before(from, rest)));
    let is_octal = |byte: &u8| (b'0'..=b'7').contains(byte);
    match escaped {
        '0'..='7' => {
            // A single digit but 0 is a backreference, which RE2 has not.
            if escaped != '0' && !rest.as_bytes().first().is_some_and(is_octal) {
                return wrong(rest);
            }
            let more = rest.bytes().take(2).take_while(|byte| is_octal(byte)).count();
            let (digits, behind) = rest.split_at(more);
            let digits =
                escaped.to_digit(8).into_iter().chain(digits.bytes().map(|b| u32::from(b - b'0')));
            Ok((digits.fold(0, |value, digit| value * 8 + digit), behind))
        }
        'x' => hexadecimal(from, rest),
        'n' => Ok((0x0a, rest)),
        'r' => Ok((0x0d, rest)),
        't' => Ok((0x09, rest)),
        'a' => Ok((0x07, rest)),
        'f' => Ok((0x0c, rest)),
        'v' => Ok((0x0b, rest)),
        // So many wrote `\_` that RE2 takes it.
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => Ok((other.into(), rest)),
        _ => wrong(rest),
    }
}

/// `\x41`, `\x{10FFFF}`.
fn hexadecimal<'a>(from: &'a str, rest: &'a str) -> Result<(u32, &'a str), Re2Error<'a>> {
    let wrong = |rest| Err(error(Re2Problem::Escape, before(from, rest)));
    if let Some(inner) = rest.strip_prefix('{') {
        let Some((digits, behind)) = inner.split_once('}') else { return wrong(rest) };
        let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Leading zeros may be many.
        let significant = digits.trim_start_matches('0');
        let value = if significant.is_empty() {
            Some(0)
        } else {
            u32::from_str_radix(significant, 16).ok()
        };
        return match value.filter(|&value| digits_only && value <= 0x10_ffff) {
            Some(value) => Ok((value, behind)),
            None => wrong(behind),
        };
    }
    match rest.as_bytes() {
        [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            let (digits, behind) = rest.split_at(2);
            Ok((u32::from_str_radix(digits, 16).unwrap_or(0), behind))
        }
        _ => wrong(rest),
    }
}
