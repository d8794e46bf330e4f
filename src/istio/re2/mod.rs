//! Whether an expression is one that RE2 takes: a checker of its syntax, not an engine.
//!
//! Istio hands every `regex` to Envoy, which compiles it with RE2; an expression that RE2 refuses makes Envoy refuse the whole
//! route table that it stands in. No other engine's parser can answer for RE2: each takes and refuses other things.
//!
//! Source: RE2's `re2/parse.cc` with the options that Envoy uses (`RE2::Quiet`: Perl syntax, UTF-8). One pass, no recursion;
//! what lies on the stack is one small entry per open parenthesis.

mod class;
mod scripts;

use std::fmt;

/// Why RE2 refuses an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Re2Error<'a> {
    /// What is wrong.
    pub problem: Re2Problem,
    /// The part of the expression that is wrong; empty where something is missing at its end.
    pub part: &'a str,
}

/// The kinds of mistakes that RE2 tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Re2Problem {
    /// `\q`, a backreference, an escape of another engine.
    Escape,
    /// A backslash at the end.
    TrailingBackslash,
    /// `[z-a]`, `[[:foo:]]`, a group of characters that RE2 does not know.
    CharacterClass,
    /// A group of characters that no RE2 known here has; a newer one may.
    UnknownScript,
    /// A `[` that is never closed.
    MissingBracket,
    /// A `(` that is never closed.
    MissingParenthesis,
    /// A `)` that closes nothing.
    UnexpectedParenthesis,
    /// `*`, `+`, `?` or `{2}` behind nothing.
    RepeatsNothing,
    /// `a**`, `a++`: a repetition of a repetition.
    RepeatedRepetition,
    /// More than 1000 repetitions, nested ones multiplied, or `{3,2}`.
    RepetitionSize,
    /// `(?=`, `(?!`, `(?<=`, `(?x)` and other groups of Perl that RE2 has not.
    Group,
    /// A group's name that is none.
    GroupName,
}

impl Re2Problem {
    /// Whether every RE2 refuses it; `false` where a newer version may know what this one does not.
    pub fn is_certain(self) -> bool {
        self != Self::UnknownScript
    }
}

impl fmt::Display for Re2Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = self.part;
        match self.problem {
            Re2Problem::Escape => write!(f, "{part} is no escape that it knows"),
            Re2Problem::TrailingBackslash => write!(f, "it ends with a backslash"),
            Re2Problem::CharacterClass | Re2Problem::UnknownScript => {
                write!(f, "{part} is no set of characters that it knows")
            }
            Re2Problem::MissingBracket => write!(f, "the bracket of {part} is not closed"),
            Re2Problem::MissingParenthesis => write!(f, "a parenthesis is not closed"),
            Re2Problem::UnexpectedParenthesis => {
                write!(f, "a parenthesis is closed that is not open")
            }
            Re2Problem::RepeatsNothing => write!(f, "{part} has nothing in front of it to repeat"),
            Re2Problem::RepeatedRepetition => write!(f, "{part} repeats a repetition"),
            Re2Problem::RepetitionSize => {
                write!(f, "{part} repeats in a wrong order or more than 1000 times")
            }
            Re2Problem::Group => {
                write!(f, "{part} begins no group that it knows")
            }
            Re2Problem::GroupName => write!(f, "{part} names no group"),
        }
    }
}

/// What lies on top of the parser's stack, as far as it decides about repetitions: nothing to repeat, or something that
/// repeats what is inside it so many times.
type Top = Option<u64>;

/// An open parenthesis: the largest repetition of what stands in the alternatives so far.
#[derive(Debug, Default)]
struct Level {
    largest: u64,
    top: Top,
}

impl Level {
    /// Something that can be repeated.
    fn push(&mut self, inner: u64) {
        self.settle();
        self.top = Some(inner);
    }

    /// What is on top will not be repeated any more.
    fn settle(&mut self) {
        self.largest = self.largest.max(self.top.take().unwrap_or(0));
    }
}

/// Nobody repeats more often, nested repetitions multiplied (`kMaxRepeat`).
const MOST_REPEATED: u64 = 1000;

/// Checks an expression.
///
/// # Errors
/// Where RE2 refuses it, with the first thing that RE2 stumbles over.
pub fn check_re2(expression: &str) -> Result<(), Re2Error<'_>> {
    let mut parser = Parser { rest: expression, level: Level::default(), open: Vec::new() };
    parser.run()
}

struct Parser<'a> {
    rest: &'a str,
    level: Level,
    open: Vec<Level>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), Re2Error<'a>> {
        let mut after_repetition = false;
        while let Some(next) = self.rest.chars().next() {
            let from = self.rest;
            let mut is_repetition = false;
            match next {
                '(' if from.starts_with("(?") => self.perl_group()?,
                '(' => {
                    self.skip(1);
                    self.open_group();
                }
                ')' => {
                    self.skip(1);
                    let Some(outer) = self.open.pop() else {
                        return Err(error(Re2Problem::UnexpectedParenthesis, ")"));
                    };
                    self.level.settle();
                    let inner = std::mem::replace(&mut self.level, outer).largest;
                    self.level.push(inner.max(1));
                }
                '|' => {
                    self.skip(1);
                    self.level.settle();
                }
                '*' | '+' | '?' => {
                    self.skip(1);
                    self.repeat(from, None, after_repetition)?;
                    is_repetition = true;
                }
                '{' => match repetition(from) {
                    None => self.literal(1),
                    Some((length, least, most)) => {
                        self.skip(length);
                        self.repeat(from, Some((least, most)), after_repetition)?;
                        is_repetition = true;
                    }
                },
                '[' => {
                    self.rest = class::bracketed(from)?;
                    self.level.push(1);
                }
                '\\' => self.backslash()?,
                other => self.literal(other.len_utf8()),
            }
            after_repetition = is_repetition;
        }
        match self.open.is_empty() {
            true => Ok(()),
            false => Err(error(Re2Problem::MissingParenthesis, "")),
        }
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or("");
    }

    fn literal(&mut self, length: usize) {
        self.skip(length);
        self.level.push(1);
    }

    fn open_group(&mut self) {
        self.level.settle();
        self.open.push(std::mem::take(&mut self.level));
    }

    /// Takes the `?` behind a repetition, and repeats what is on top.
    fn repeat(
        &mut self,
        from: &'a str,
        counts: Option<(u64, Option<u64>)>,
        after_repetition: bool,
    ) -> Result<(), Re2Error<'a>> {
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        let part = before(from, self.rest);
        if after_repetition {
            return Err(error(Re2Problem::RepeatedRepetition, part));
        }
        if let Some((least, most)) = counts
            && (least > MOST_REPEATED
                || most.is_some_and(|most| most < least || most > MOST_REPEATED))
        {
            return Err(error(Re2Problem::RepetitionSize, part));
        }
        let Some(inner) = self.level.top else {
            return Err(error(Re2Problem::RepeatsNothing, part));
        };
        let Some((least, most)) = counts else { return Ok(()) };
        let all = inner.saturating_mul(most.unwrap_or(least).max(1));
        if (least >= 2 || most.is_some_and(|most| most >= 2)) && all > MOST_REPEATED {
            return Err(error(Re2Problem::RepetitionSize, part));
        }
        self.level.top = Some(all);
        Ok(())
    }

    /// `(?:`, `(?i)`, `(?i:`, `(?P<name>`, `(?<name>`.
    fn perl_group(&mut self) -> Result<(), Re2Error<'a>> {
        let from = self.rest;
        let is_look_around =
            ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|start| from.starts_with(start));
        if is_look_around {
            let length = if from.starts_with("(?<") { 4 } else { 3 };
            return Err(error(Re2Problem::Group, &from[..length]));
        }
        let name = from.strip_prefix("(?P<").or_else(|| from.strip_prefix("(?<"));
        if let Some(rest) = name {
            let Some((name, rest)) = rest.split_once('>') else {
                return Err(error(Re2Problem::GroupName, from));
            };
            // Letters beyond ASCII are taken or not by their category: what cannot be told is taken.
            let is_name = !name.is_empty()
                && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii());
            if !is_name {
                return Err(error(Re2Problem::GroupName, before(from, rest)));
            }
            self.rest = rest;
            self.open_group();
            return Ok(());
        }
        let (mut is_negated, mut has_flags) = (false, false);
        for (at, flag) in from.char_indices().skip(2) {
            let end = at + flag.len_utf8();
            match flag {
                'i' | 'm' | 's' | 'U' => has_flags = true,
                '-' if !is_negated => (is_negated, has_flags) = (true, false),
                ':' | ')' if !is_negated || has_flags => {
                    self.skip(end);
                    if flag == ':' {
                        self.open_group();
                    }
                    return Ok(());
                }
                _ => return Err(error(Re2Problem::Group, &from[..end])),
            }
        }
        Err(error(Re2Problem::MissingParenthesis, from))
    }

    fn backslash(&mut self) -> Result<(), Re2Error<'a>> {
        match self.rest.as_bytes().get(1) {
            Some(b'b' | b'B' | b'A' | b'z' | b'C') => self.literal(2),
            Some(b'Q') => {
                self.skip(2);
                let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                if !quoted.is_empty() {
                    self.level.push(1);
                }
                self.rest = rest;
            }
            _ => {
                self.rest = match class::set(self.rest)? {
                    Some(rest) => rest,
                    None => class::escape(self.rest)?.1,
                };
                self.level.push(1);
            }
        }
        Ok(())
    }
}

fn error(problem: Re2Problem, part: &str) -> Re2Error<'_> {
    Re2Error { problem, part }
}

/// What stands in `all` in front of `rest`, its end.
fn before<'a>(all: &'a str, rest: &str) -> &'a str {
    &all[..all.len() - rest.len()]
}

/// `{2}`, `{2,}`, `{2,3}`: its length, the least and the most; anything else is literal text.
fn repetition(from: &str) -> Option<(usize, u64, Option<u64>)> {
    let rest = from.strip_prefix('{')?;
    let (least, rest) = number(rest)?;
    let (most, rest) = match rest.strip_prefix(',') {
        None => (Some(least), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (most, rest) = number(rest)?;
            (Some(most), rest)
        }
    };
    let rest = rest.strip_prefix('}')?;
    Some((from.len() - rest.len(), least, most))
}

/// A number as RE2 reads it: no leading zeros, at most nine digits.
fn number(from: &str) -> Option<(u64, &str)> {
    let end = from.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(from.len());
    let (digits, rest) = from.split_at(end);
    if digits.is_empty() || digits.len() > 9 || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}
