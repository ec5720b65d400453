//! A file as a tree of values with positions.
//!
//! In:  text of one or more YAML or JSON documents.
//! Out: one [`Node`] per document, bounded in depth and number of nodes, aliases expanded.
//! Not here: what the values mean (`document`).
//!
//! Scalars are typed as the Kubernetes API server types them (YAML 1.1 booleans included), so
//! that a file means here what `kubectl apply` makes of it.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{Limits, Problem};

/// A position: both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Mark {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

impl From<&Marker> for Mark {
    fn from(marker: &Marker) -> Self {
        Self {
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
            column: u32::try_from(marker.col().saturating_add(1)).unwrap_or(u32::MAX),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Box<str>),
    String(Box<str>),
    List(Vec<Node>),
    Map(Vec<Member>),
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) at: Mark,
    pub(super) key: Box<str>,
    pub(super) value: Node,
}

impl Value {
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// How many nodes it holds, and how deep they go.
    fn size(&self) -> (usize, usize) {
        let children: Box<dyn Iterator<Item = &Self>> = match &self.value {
            Value::List(items) => Box::new(items.iter()),
            Value::Map(members) => Box::new(members.iter().map(|m| &m.value)),
            _ => return (1, 1),
        };
        let (nodes, depth) = children
            .map(Self::size)
            .fold((0, 0), |(n, d), (nodes, depth)| (n + nodes, d.max(depth)));
        (nodes + 1, depth + 1)
    }
}

/// A mistake and where it is.
pub(super) type Misplaced = (Mark, Problem);

/// Reads every document of `text`.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Vec<Node>, Vec<Misplaced>> {
    let mut builder = Builder {
        limits,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        documents: Vec::new(),
        problems: Vec::new(),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err((error.marker().into(), Problem::Syntax(error.info().into()))),
        };
        if let Err(problem) = result {
            builder.problems.push(problem);
            break;
        }
    }
    if builder.problems.is_empty() {
        Ok(builder.documents)
    } else {
        Err(builder.problems)
    }
}

struct Builder<'a> {
    limits: &'a Limits,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: Vec<Node>,
    problems: Vec<Misplaced>,
}

/// A list or mapping that is not closed yet.
struct Open {
    at: Mark,
    anchor: usize,
    what: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        members: Vec<Member>,
        keys: HashSet<Box<str>>,
        key: Option<(Mark, Box<str>)>,
    },
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Misplaced> {
        let at = Mark::from(&span.start);
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(at, 1)?;
                if let Some(Open {
                    what:
                        OpenKind::Map {
                            key: key @ None, ..
                        },
                    ..
                }) = self.open.last_mut()
                {
                    *key = Some((at, text.as_ref().into()));
                    return Ok(());
                }
                let value = scalar(&text, style, tag.as_deref()).map_err(|p| (at, p))?;
                self.close(Node { at, value }, anchor)
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err((at, Problem::AliasOfItself));
                };
                let node = Node {
                    at,
                    ..target.clone()
                };
                let (nodes, depth) = node.size();
                self.count(at, nodes)?;
                self.check_depth(at, depth)?;
                self.close(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(at, anchor, tag.as_deref(), OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => self.open(
                at,
                anchor,
                tag.as_deref(),
                OpenKind::Map {
                    members: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let value = match open.what {
                    OpenKind::List(items) => Value::List(items),
                    OpenKind::Map { members, .. } => Value::Map(members),
                };
                self.close(Node { at: open.at, value }, open.anchor)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: Mark,
        anchor: usize,
        tag: Option<&Tag>,
        what: OpenKind,
    ) -> Result<(), Misplaced> {
        if let Some(tag) = tag {
            return Err((at, Problem::Tag(tag.to_string())));
        }
        if let Some(Open {
            what: OpenKind::Map { key: None, .. },
            ..
        }) = self.open.last()
        {
            return Err((at, Problem::KeyNotText));
        }
        self.count(at, 1)?;
        self.check_depth(at, 1)?;
        self.open.push(Open { at, anchor, what });
        Ok(())
    }

    /// A value is complete: into its parent, or it is a document.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Misplaced> {
        if anchor != 0 {
            // Kept copies are paid for like any other node.
            self.count(node.at, node.size().0)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.what {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { members, keys, key } => {
                let Some((at, text)) = key.take() else {
                    return Err((node.at, Problem::KeyNotText));
                };
                if &*text == "<<" {
                    return Err((at, Problem::MergeKey));
                }
                if keys.insert(text.clone()) {
                    members.push(Member {
                        at,
                        key: text,
                        value: node,
                    });
                } else {
                    self.problems.push((at, Problem::DuplicateKey(text.into())));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, at: Mark, nodes: usize) -> Result<(), Misplaced> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.limits.max_nodes {
            return Err((
                at,
                Problem::TooManyNodes {
                    limit: self.limits.max_nodes,
                },
            ));
        }
        Ok(())
    }

    fn check_depth(&self, at: Mark, more: usize) -> Result<(), Misplaced> {
        if self.open.len() + more > self.limits.max_depth {
            return Err((
                at,
                Problem::TooDeep {
                    limit: self.limits.max_depth,
                },
            ));
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Problem> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => {
            return Ok(Value::String(text.into()));
        }
        Some(tag) => return Err(Problem::Tag(tag.to_string())),
        None => {}
    }
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.into()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ if is_number(text) => Value::Number(text.into()),
        _ => Value::String(text.into()),
    })
}

/// Integers (decimal, octal, hexadecimal, binary, with `_`) and floats.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        return true;
    }
    let digits = |rest: &str, radix: u32| {
        !rest.is_empty() && rest.chars().all(|c| c == '_' || c.is_digit(radix))
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = unsigned.strip_prefix(prefix) {
            return digits(rest, radix);
        }
    }
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.chars().any(|c| c.is_ascii_digit())
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '_' | '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.replace('_', "").parse::<f64>().is_ok()
}
