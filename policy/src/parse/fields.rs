//! Walking a tree of values while collecting every mistake.
//!
//! In:  nodes with positions.
//! Out: typed values, and errors that carry file, line, column and field path.
//! Not here: the fields of any particular object (`cilium`, `peers`, `ports`).

use std::sync::Arc;

use super::{
    PolicyError, Problem,
    tree::{Mark, Node, Value},
};

/// How many mistakes one file reports.
pub(super) const MAX_ERRORS: usize = 20;

/// How many regular expressions one file may hold.
pub(super) const MAX_REGEXES: usize = 2000;

/// Collects mistakes; knows the file.
pub(super) struct Reader {
    pub(super) file: Arc<str>,
    /// Which document of several is read.
    pub(super) document: Option<u32>,
    pub(super) errors: Vec<PolicyError>,
    /// Regular expressions read so far; a file may hold [`MAX_REGEXES`].
    pub(super) regexes: usize,
}

/// A node and the path that leads to it.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    pub(super) const fn line(&self) -> u32 {
        self.node.at.line
    }

    fn field(&self, name: &str, node: &'a Node) -> Self {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push('.');
        }
        // Keys with dots in them (labels) would be unreadable as a path.
        if name.contains(['.', '[', ' ']) {
            path.push('"');
            path.push_str(name);
            path.push('"');
        } else {
            path.push_str(name);
        }
        Self { node, path }
    }

    /// A member of a mapping; none of anything else.
    pub(super) fn member(&self, name: &str) -> Option<Self> {
        let Value::Map(members) = &self.node.value else {
            return None;
        };
        let member = members.iter().find(|member| &*member.key == name)?;
        Some(self.field(&member.key, &member.value))
    }

    fn index(&self, at: usize, node: &'a Node) -> Self {
        Self {
            node,
            path: format!("{}[{at}]", self.path),
        }
    }
}

/// The members of a mapping whose fields are all known.
pub(super) struct Fields<'a>(Vec<(&'a str, Cursor<'a>)>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Cursor<'a>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, c)| c)
    }
}

impl Reader {
    pub(super) fn problem(&mut self, at: &Cursor<'_>, problem: impl Into<Problem>) {
        self.report(at.node.at, at.path.clone(), problem.into());
    }

    pub(super) fn report(&mut self, at: Mark, field: String, problem: Problem) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(PolicyError {
                document: self.document,
                file: Arc::clone(&self.file),
                line: at.line,
                column: at.column,
                field,
                problem,
            });
        }
    }

    fn wrong_type(&mut self, at: &Cursor<'_>, expected: &'static str) {
        let problem = match &at.node.value {
            Value::Null => Problem::Null,
            other => Problem::WrongType {
                expected,
                found: other.type_name(),
            },
        };
        self.problem(at, problem);
    }

    pub(super) fn string<'a>(&mut self, at: &Cursor<'a>) -> Option<&'a str> {
        if let Value::String(text) = &at.node.value {
            return Some(text);
        }
        self.wrong_type(at, "a string");
        None
    }

    pub(super) fn text(&mut self, at: Option<&Cursor<'_>>) -> Option<Arc<str>> {
        Some(self.string(at?)?.into())
    }

    pub(super) fn boolean(&mut self, at: &Cursor<'_>) -> Option<bool> {
        if let Value::Bool(value) = at.node.value {
            return Some(value);
        }
        self.wrong_type(at, "true or false");
        None
    }

    /// A number from 0 to `max`.
    pub(super) fn number(&mut self, at: &Cursor<'_>, max: u32) -> Option<u32> {
        let Value::Number(text) = &at.node.value else {
            self.wrong_type(at, "a number");
            return None;
        };
        match text.parse::<u32>() {
            Ok(value) if value <= max => Some(value),
            _ => {
                let problem = Problem::OutOfRange(text.to_string(), max);
                self.problem(at, problem);
                None
            }
        }
    }

    pub(super) fn list<'a>(&mut self, at: &Cursor<'a>) -> Option<Vec<Cursor<'a>>> {
        let Value::List(items) = &at.node.value else {
            self.wrong_type(at, "a list");
            return None;
        };
        let cursors = items.iter().enumerate();
        Some(cursors.map(|(i, node)| at.index(i, node)).collect())
    }

    /// A list that may hold at most `limit` elements.
    pub(super) fn short_list<'a>(
        &mut self,
        at: &Cursor<'a>,
        limit: usize,
    ) -> Option<Vec<Cursor<'a>>> {
        let items = self.list(at)?;
        if items.len() > limit {
            self.problem(
                at,
                Problem::TooMany {
                    found: items.len(),
                    limit,
                },
            );
            return None;
        }
        Some(items)
    }

    /// Any mapping, its keys being data.
    pub(super) fn mapping<'a>(&mut self, at: &Cursor<'a>) -> Option<Vec<(&'a str, Cursor<'a>)>> {
        let Value::Map(members) = &at.node.value else {
            self.wrong_type(at, "a mapping");
            return None;
        };
        Some(
            members
                .iter()
                .map(|m| (&*m.key, at.field(&m.key, &m.value)))
                .collect(),
        )
    }

    /// A mapping of fields. Every field outside of `known` is a mistake: one of `later` is part
    /// of the language and named as such.
    pub(super) fn fields<'a>(
        &mut self,
        at: &Cursor<'a>,
        known: &'static [&'static str],
        later: &'static [&'static str],
    ) -> Option<Fields<'a>> {
        let Value::Map(members) = &at.node.value else {
            self.wrong_type(at, "a mapping");
            return None;
        };
        let mut fields = Vec::new();
        for member in members {
            let cursor = at.field(&member.key, &member.value);
            if known.contains(&&*member.key) {
                fields.push((&*member.key, cursor));
            } else if later.contains(&&*member.key) {
                let problem = Problem::Unsupported(member.key.to_string());
                self.report(member.at, cursor.path, problem);
            } else {
                let candidates = known.iter().chain(later).copied();
                let problem = Problem::UnknownField {
                    name: member.key.to_string(),
                    suggestion: alike(&member.key, candidates),
                };
                self.report(member.at, cursor.path, problem);
            }
        }
        Some(Fields(fields))
    }
}

/// The candidate that differs in case only, or in at most two characters.
fn alike(text: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // Long keys are no typing mistake, and comparing costs length × length.
    if text.len() > 32 {
        return None;
    }
    candidates
        .map(|known| {
            let known_lower = known.to_ascii_lowercase();
            (distance(&text.to_ascii_lowercase(), &known_lower), known)
        })
        .filter(|(distance, known)| *distance <= 2 && *distance * 2 <= known.len())
        .min()
        .map(|(_, known)| known)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let cost = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = cost.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
