//! Findings as the lines and warnings that reach a terminal.

/// The API server cuts a warning at 256 characters.
const WARNING_CHARS: usize = 255;

/// How a finding's line begins that says which write would pass.
const WAYS_OUT: [&str; 3] = [" Passes: ", " Passes now: ", " Passes without a warning: "];

/// One line, short enough to arrive whole: the finding's lines as sentences. Where they are too long, what goes is the
/// middle, because a person needs what is wrong and what would pass more than why.
pub(super) fn warning(text: &str) -> String {
    let line = lines(text).fold(String::new(), |line, next| match line.chars().next_back() {
        None => next.trim().to_owned(),
        Some('.' | ',' | ':' | ';' | '!' | '?' | '…') => line + " " + next.trim(),
        Some(_) => line + ". " + next.trim(),
    });
    if line.chars().count() <= WARNING_CHARS {
        return line;
    }
    match WAYS_OUT.iter().filter_map(|words| line.rfind(words)).max() {
        None => short(&line, WARNING_CHARS),
        Some(at) => {
            let (reason, way_out) = line.split_at(at);
            // Neither may push the other out: each is sure of half.
            let room = WARNING_CHARS.saturating_sub(way_out.chars().count()).max(WARNING_CHARS / 2);
            short(&(short(reason, room) + way_out), WARNING_CHARS)
        }
    }
}

/// The lines that are not blank. They quote what users wrote: no control character may reach a terminal or split a log line.
pub(super) fn lines(text: &str) -> impl Iterator<Item = String> {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(move |line| line.trim_end().chars().map(printable).collect())
}

/// At most this many characters, the last of them `…` where something was cut.
pub(super) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}
