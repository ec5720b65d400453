//! `matchLabels` and `matchExpressions`.
//!
//! In:  a label selector.
//! Out: [`LabelSelector`], not yet scoped to a namespace.
//! Not here: matching (`selector`).

use super::{
    Problem,
    fields::{Cursor, Reader},
};
use crate::selector::{LabelKey, LabelSelector, Operator, Requirement};

const MAX_VALUE: usize = 63;
/// Source, `io.cilium.k8s.namespace.labels.` and a qualified name of 253/63 fit.
const MAX_KEY: usize = 400;
const OPERATORS: &str = "In, NotIn, Exists, DoesNotExist";

pub(super) fn selector(reader: &mut Reader, at: &Cursor<'_>) -> Option<LabelSelector> {
    let errors = reader.errors.len();
    let fields = reader.fields(at, &["matchLabels", "matchExpressions"], &[])?;
    let mut requirements = Vec::new();
    if let Some(labels) = fields.get("matchLabels") {
        for (text, value) in reader.mapping(labels)? {
            let key = key(reader, &value, text);
            if let (Some(key), Some(value)) = (key, label_value(reader, &value)) {
                requirements.push(Requirement::equals(key, value));
            }
        }
    }
    if let Some(expressions) = fields.get("matchExpressions") {
        for item in reader.list(expressions)? {
            requirements.extend(expression(reader, &item));
        }
    }
    (reader.errors.len() == errors).then(|| LabelSelector::new(requirements))
}

fn expression(reader: &mut Reader, at: &Cursor<'_>) -> Option<Requirement> {
    let fields = reader.fields(at, &["key", "operator", "values"], &[])?;
    let (Some(key_at), Some(operator_at)) = (fields.get("key"), fields.get("operator")) else {
        let missing = if fields.get("key").is_none() {
            "key"
        } else {
            "operator"
        };
        reader.problem(at, Problem::Missing(missing));
        return None;
    };
    let text = reader.string(key_at)?;
    let key = key(reader, key_at, text)?;
    let mut values: Vec<Box<str>> = Vec::new();
    if let Some(list) = fields.get("values") {
        for item in reader.list(list)? {
            values.push(label_value(reader, &item)?.into());
        }
    }
    values.sort_unstable();
    values.dedup();
    let needs_values = |operator| Problem::OperatorValues {
        operator,
        needs: "needs at least one value",
    };
    let needs_none = |operator| Problem::OperatorValues {
        operator,
        needs: "takes no values",
    };
    let problem = match reader.string(operator_at)? {
        "In" if !values.is_empty() => {
            return Some(Requirement {
                key,
                operator: Operator::In(values),
            });
        }
        "NotIn" if !values.is_empty() => {
            return Some(Requirement {
                key,
                operator: Operator::NotIn(values),
            });
        }
        "Exists" if values.is_empty() => {
            return Some(Requirement {
                key,
                operator: Operator::Exists,
            });
        }
        "DoesNotExist" if values.is_empty() => {
            return Some(Requirement {
                key,
                operator: Operator::DoesNotExist,
            });
        }
        "In" => needs_values("In"),
        "NotIn" => needs_values("NotIn"),
        "Exists" => needs_none("Exists"),
        "DoesNotExist" => needs_none("DoesNotExist"),
        other => Problem::NotOneOf {
            found: other.into(),
            allowed: OPERATORS.into(),
        },
    };
    reader.problem(operator_at, problem);
    None
}

fn key(reader: &mut Reader, at: &Cursor<'_>, text: &str) -> Option<LabelKey> {
    let key = LabelKey::parse(text);
    let valid = !key.source.is_empty()
        && !key.key.is_empty()
        && text.len() <= MAX_KEY
        && key.key.split('/').count() <= 2
        && key.key.split('/').all(is_label_text);
    if !valid {
        reader.problem(at, Problem::Label(text.into(), "key"));
        return None;
    }
    Some(key)
}

fn label_value<'a>(reader: &mut Reader, at: &Cursor<'a>) -> Option<&'a str> {
    let text = reader.string(at)?;
    if text.len() > MAX_VALUE || !(text.is_empty() || is_label_text(text)) {
        reader.problem(at, Problem::Label(text.into(), "value"));
        return None;
    }
    Some(text)
}

/// Letters and digits at both ends, `-`, `_` and `.` between.
fn is_label_text(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(end)
        && text.ends_with(end)
        && text.chars().all(|c| end(c) || matches!(c, '-' | '_' | '.'))
}
