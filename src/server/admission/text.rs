/// The API server cuts a warning at 256 characters.
const WARNING_CHARS: usize = 255;

/// One line, short enough to arrive whole.
pub(super) fn warning(text: &str) -> String {
    let line = lines(text).map(|line| line.trim().to_owned()).collect::<Vec<_>>().join(" ");
    short(&line, WARNING_CHARS)
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
