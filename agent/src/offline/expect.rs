//! What a scenario expects of a flow.
//!
//! In:  `expect: DROPPED`, or any part of what the command prints as JSON.
//! Out: [`Difference`]s between that and what came out.
//! Not here: printing them (`cli`).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, value},
};

use super::{Decision, L7, Outcome, Verdict};

/// What should come out. What is not written is not compared; `null` is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation(Whole);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default, deserialize_with = "written")]
    egress: Option<Option<Direction>>,
    #[serde(default, deserialize_with = "written")]
    ingress: Option<Option<Direction>>,
}

/// One direction: a verdict, or any of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Direction(Parts);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    reason: Option<u8>,
    #[serde(default, rename = "match")]
    match_type: Option<String>,
    #[serde(default, deserialize_with = "written")]
    l7: Option<Option<L7>>,
    #[serde(default)]
    rules: Option<Vec<String>>,
    #[serde(default)]
    reason_text: Option<String>,
}

/// One part that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which part, like `egress.reason`.
    pub field: String,
    /// What the scenario says.
    pub expected: String,
    /// What came out.
    pub actual: String,
}

impl Expectation {
    /// Every part that came out otherwise.
    pub fn differences(&self, outcome: &Outcome) -> Vec<Difference> {
        let mut found = Found::default();
        found.compare("verdict", self.0.verdict.as_ref(), &outcome.verdict);
        found.direction("egress", &self.0.egress, outcome.egress.as_ref());
        found.direction("ingress", &self.0.ingress, outcome.ingress.as_ref());
        found.0
    }

    /// Whether nothing is expected: such a test cannot fail.
    pub(super) fn is_empty(&self) -> bool {
        self.0.verdict.is_none() && self.0.egress.is_none() && self.0.ingress.is_none()
    }
}

#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, field: &str, expected: String, actual: String) {
        self.0.push(Difference {
            field: field.to_owned(),
            expected,
            actual,
        });
    }

    fn compare<T: PartialEq + fmt::Display>(
        &mut self,
        field: &str,
        expected: Option<&T>,
        actual: &T,
    ) {
        if let Some(expected) = expected
            && expected != actual
        {
            self.add(field, expected.to_string(), actual.to_string());
        }
    }

    fn direction(
        &mut self,
        name: &str,
        expected: &Option<Option<Direction>>,
        actual: Option<&Decision>,
    ) {
        let Some(expected) = expected else { return };
        let (parts, actual) = match (expected, actual) {
            (None, None) => return,
            (None, Some(actual)) => {
                return self.add(name, "null (not judged)".into(), actual.verdict.to_string());
            }
            (Some(Direction(parts)), None) => {
                let verdict = parts
                    .verdict
                    .map_or_else(|| "judged".into(), |v| v.to_string());
                return self.add(name, verdict, "null (not judged)".into());
            }
            (Some(Direction(parts)), Some(actual)) => (parts, actual),
        };
        let field = |part| format!("{name}.{part}");
        self.compare(&field("verdict"), parts.verdict.as_ref(), &actual.verdict);
        self.compare(&field("reason"), parts.reason.as_ref(), &actual.reason);
        let match_type = actual.match_type.to_owned();
        self.compare(&field("match"), parts.match_type.as_ref(), &match_type);
        if let Some(l7) = &parts.l7 {
            let text = |l7: Option<L7>| l7.map_or_else(|| "null".into(), |l7| l7.to_string());
            self.compare(&field("l7"), Some(&text(*l7)), &text(actual.l7));
        }
        if let Some(rules) = &parts.rules {
            let text = |rules: &[String]| format!("[{}]", rules.join(", "));
            let mut rules = rules.clone();
            rules.sort_unstable();
            self.compare(&field("rules"), Some(&text(&rules)), &text(&actual.rules));
        }
        self.compare(
            &field("reason_text"),
            parts.reason_text.as_ref(),
            &actual.reason_text,
        );
    }
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(VerdictOr(|verdict| Whole {
                verdict: Some(verdict),
                ..Whole::default()
            }))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Direction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(VerdictOr(|verdict| Parts {
                verdict: Some(verdict),
                ..Parts::default()
            }))
            .map(Self)
    }
}

/// A verdict by itself, or a mapping.
struct VerdictOr<F>(F);

impl<'de, T: Deserialize<'de>, F: FnOnce(Verdict) -> T> de::Visitor<'de> for VerdictOr<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a verdict (FORWARDED, REDIRECTED, AUDIT, DROPPED) or a mapping with one")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        Verdict::deserialize(value::StrDeserializer::new(text)).map(self.0)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(value::MapAccessDeserializer::new(map))
    }
}

/// Tells `null` from what is not written.
fn written<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
