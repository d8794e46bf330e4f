use std::fmt::{self, Display};

/// What was looked at and what was found, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Check>);

#[derive(Debug)]
struct Check {
    what: String,
    found: String,
    /// What to do about it, where it is not as it should be; empty where the finding says so itself.
    remedy: Option<String>,
}

impl Report {
    pub(super) fn good(&mut self, what: &str, found: impl Display) {
        self.0.push(Check { what: what.to_owned(), found: found.to_string(), remedy: None });
    }

    pub(super) fn bad(&mut self, what: &str, found: impl Display, remedy: &str) {
        let (what, found) = (what.to_owned(), found.to_string());
        self.0.push(Check { what, found, remedy: Some(remedy.to_owned()) });
    }

    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.remedy.is_none())
    }

    /// The first thing that is not as it should be, in one line.
    pub(super) fn first_problem(&self) -> String {
        let mut bad = self.0.iter().filter(|check| check.remedy.is_some());
        bad.next().map_or(String::new(), |Check { what, found, .. }| format!("{what}: {found}"))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, found, remedy } in &self.0 {
            let word = if remedy.is_some() { "FAIL" } else { "ok  " };
            let found = found.trim_end().replace('\n', "\n      ");
            writeln!(f, "{word}  {what}: {found}")?;
            if let Some(remedy) = remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
                writeln!(f, "      {remedy}")?;
            }
        }
        let bad = self.0.iter().filter(|check| check.remedy.is_some()).count();
        match bad {
            0 => writeln!(f, "All {} checks passed.", self.0.len()),
            bad => writeln!(f, "{bad} of {} checks failed.", self.0.len()),
        }
    }
}
